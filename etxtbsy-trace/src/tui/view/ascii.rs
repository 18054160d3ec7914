//! The screen for a terminal that shows ASCII alone.

use ratatui::buffer::Buffer;

/// Our own characters beyond ASCII, and what stands for them. Those that tell different things on
/// one pane have different ones.
const SUBSTITUTES: [(&str, &str); 24] = [
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
    ("▲", "^"),
    ("▼", "v"),
    ("·", "."),
    ("…", "~"),
    ("µ", "u"),
    ("×", "x"),
];

/// Leaves nothing but ASCII in the buffer. A wide character keeps both its columns.
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
    fn nothing_but_ascii_is_left_and_no_column_moves() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 1));
        buffer.set_string(0, 0, "└─ 家 µs é█x", Style::new());
        only(&mut buffer);
        let row: String = buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect();
        assert_eq!(row, "`- ?  us ?#x");
    }
}
