//! The screen for a terminal that shows only ASCII.

use ratatui::buffer::Buffer;

/// Our own characters beyond ASCII, and their substitutes. Characters with different meanings on one
/// pane have different substitutes.
const SUBSTITUTES: [(&str, &str); 25] = [
    ("─━", "-"),
    ("│├", "|"),
    ("└", "`"),
    ("┘", "'"),
    ("┊", "."),
    ("┃", "I"),
    ("█", "#"),
    ("▓", "%"),
    ("▒", "="),
    ("░", ":"),
    ("┄", "~"),
    ("●", "o"),
    ("○", "c"),
    ("┬", "Y"),
    ("→", ">"),
    ("▶", ")"),
    ("»", "}"),
    ("«", "{"),
    ("╱", "/"),
    ("▲", "^"),
    ("▼", "v"),
    ("·", "."),
    ("…", "~"),
    ("µ", "u"),
    ("×", "x"),
];

/// Replaces all characters beyond ASCII. A wide character keeps its two columns.
pub(super) fn only(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            let own = |(ours, _): &&(&str, &str)| ours.contains(cell.symbol());
            cell.set_symbol(SUBSTITUTES.iter().find(own).map_or("?", |(_, ascii)| ascii));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{layout::Rect, style::Style};

    #[test]
    fn only_ascii_remains_and_no_column_moves() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 1));
        buffer.set_string(0, 0, "└─ 家 µs é█x", Style::new());
        only(&mut buffer);
        let row: String = buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect();
        assert_eq!(row, "`- ?  us ?#x");
    }
}
