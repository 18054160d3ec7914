//! Tables of text.

use std::fmt::Write as _;

/// Rows of cells; the first column is text, the others are numbers.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![head.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row with as many cells as the head.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, or in Markdown.
    pub(crate) fn shown(&self, markdown: bool) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|at| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        // Writing to a String cannot fail.
        let mut shown = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
                if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let cells: Vec<String> = cells.collect();
            if markdown {
                let _ = writeln!(shown, "| {} |", cells.join(" | "));
            } else {
                shown.push_str(cells.join("  ").trim_end());
                shown.push('\n');
            }
            if markdown && index == 0 {
                let rule = |(at, width): (usize, &usize)| {
                    if at == 0 { "-".repeat(*width) } else { "-".repeat(width.max(&2) - 1) + ":" }
                };
                let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
                let _ = writeln!(shown, "| {} |", rules.join(" | "));
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["call", "took"]);
        table.row(["open".into(), "12 µs".into()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(table().shown(false), "call   took\nopen  12 µs\n");
    }

    #[test]
    fn markdown_aligns_numbers_to_the_right() {
        assert_eq!(table().shown(true), "| call |  took |\n| ---- | ----: |\n| open | 12 µs |\n");
    }
}
