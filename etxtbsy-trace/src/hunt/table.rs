//! What a hunt came to, as a table: plain and provoked runs next to each other.

use crate::{
    analysis::rate::Rate,
    event::{Hunt, Runs},
    output::near_miss::percent,
    text::escape,
};

/// The kinds of runs that there were, with their names.
pub(super) fn kinds(hunt: &Hunt) -> Vec<(&'static str, Runs)> {
    let kinds = [("plain", hunt.plain), ("provoked", hunt.provoked)];
    kinds.into_iter().filter(|(_, runs)| *runs != Runs::default()).collect()
}

/// What a cell has of the runs of a kind.
type Cell = fn(&Runs) -> String;

/// The table.
#[must_use]
pub fn table(hunt: &Hunt) -> String {
    let kinds = kinds(hunt);
    let rows: [(&str, Cell); 7] = [
        ("runs", |runs| runs.runs.to_string()),
        ("  with a failure", |runs| share(runs.with_incidents, runs.runs)),
        ("  with a near miss", |runs| share(runs.with_near_misses, runs.runs)),
        ("  exit status not 0", |runs| runs.failed.to_string()),
        ("execs of files written here", |runs| runs.execs.of_written_files.to_string()),
        ("  failed", |runs| share(runs.execs.failed, runs.execs.of_written_files)),
        ("  near misses", |runs| share(runs.near_misses, runs.execs.of_written_files)),
    ];
    let mut columns = vec![
        std::iter::once(String::new()).chain(rows.iter().map(|row| row.0.to_owned())).collect(),
    ];
    for (name, runs) in &kinds {
        let cells = rows.iter().map(|(_, cell)| cell(runs));
        columns.push(std::iter::once((*name).to_owned()).chain(cells).collect::<Vec<_>>());
    }
    let widths: Vec<usize> = columns
        .iter()
        .map(|cells| cells.iter().map(|cell| escape::width(cell)).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in 0..=rows.len() {
        let cells = columns.iter().zip(&widths);
        let cells: Vec<String> =
            cells.map(|(cells, width)| format!("{:width$}", cells[row])).collect();
        out += cells.join("  ").trim_end();
        out += "\n";
    }
    out
}

/// So many of so many, with the rate and its interval.
fn share(happened: u64, of: u64) -> String {
    format!("{happened}{}", percent(Rate { happened, of }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Execs;

    #[test]
    fn plain_and_provoked_runs_stand_next_to_each_other() {
        let execs = |of_written_files, failed| Execs { total: 9, of_written_files, failed };
        let plain = Runs {
            runs: 50,
            near_misses: 143,
            with_near_misses: 40,
            execs: execs(4800, 0),
            ..Runs::default()
        };
        let provoked = Runs {
            runs: 50,
            failed: 12,
            with_incidents: 12,
            incidents: 18,
            execs: execs(1440, 18),
            ..Runs::default()
        };
        let table = table(&Hunt { plain, provoked });
        let expected = "
                             plain                              provoked
runs                         50                                 50
  with a failure             0 (95%: below 7.13%)               12 (24.00%, 95%: 14.30 to 37.41%)
  with a near miss           40 (80.00%, 95%: 66.96 to 88.76%)  0 (95%: below 7.13%)
  exit status not 0          0                                  12
execs of files written here  4800                               1440
  failed                     0 (95%: below 0.08%)               18 (1.25%, 95%: 0.79 to 1.97%)
  near misses                143 (2.98%, 95%: 2.53 to 3.50%)    0 (95%: below 0.27%)
";
        assert!(format!("\n{table}") == expected, "{table}");
    }

    #[test]
    fn a_kind_without_runs_is_left_out() {
        let plain = Runs { runs: 1, ..Runs::default() };
        let table = table(&Hunt { plain, provoked: Runs::default() });
        assert!(table.contains("plain") && !table.contains("provoked"), "{table}");
        assert!(table.contains("  failed                     0\n"), "{table}");
    }
}
