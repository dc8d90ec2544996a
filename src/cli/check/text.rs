//! The report for people: a heading a category, a line a row, a hint below each row that warns or failed.
//!
//! Pure.

use std::fmt::Write as _;

use super::report::{Category, Row, Status, count};

/// The widest column of names; a longer name moves its own line alone.
const WIDEST: usize = 40;

/// The whole text, without a line break at its end.
pub(super) fn render(rows: &[Row], is_coloured: bool) -> String {
    let width = rows.iter().map(|row| row.check.chars().count());
    let width = width.filter(|width| *width <= WIDEST).max().unwrap_or(0);
    let mut text = String::new();
    let mut shown: Option<Category> = None;
    for row in rows {
        if shown != Some(row.category) {
            shown = Some(row.category);
            let _ = writeln!(text, "{}", row.category.title());
        }
        let symbol = symbol(row.status, is_coloured);
        let _ = writeln!(text, "  {symbol} {:width$}  {}", row.check, row.detail);
        if let Some(hint) = &row.hint {
            let _ = writeln!(text, "    hint: {hint}");
        }
    }
    text.push_str(&summary(rows, is_coloured));
    text
}

fn summary(rows: &[Row], is_coloured: bool) -> String {
    let parts = [
        (Status::Failed, "failed"),
        (Status::Warning, "with a warning"),
        (Status::Ok, "ok"),
        (Status::Skipped, "not looked at"),
    ];
    let said: Vec<String> = parts
        .into_iter()
        .filter_map(|(status, word)| {
            let count = count(rows, status);
            (count > 0).then(|| format!("{} {count} {word}", symbol(status, is_coloured)))
        })
        .collect();
    format!("\n{}", said.join("   "))
}

fn symbol(status: Status, is_coloured: bool) -> String {
    let (symbol, colour) = match status {
        Status::Ok => ("✓", 32),
        Status::Warning => ("‼", 33),
        Status::Failed => ("×", 31),
        Status::Skipped => ("–", 2),
    };
    match is_coloured {
        true => format!("\x1b[{colour}m{symbol}\x1b[0m"),
        false => symbol.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Report, *};

    fn rows() -> Vec<Row> {
        let mut report = Report::default();
        report.ok(Category::Configuration, "settings", "valid");
        report.failed(Category::Tcp, "broker:9092", "refused", "Start the broker.");
        report.skipped(Category::Sasl, "broker:9092", "there is no connection");
        report.warning(Category::Limits, "memory", "little", "Give it more.");
        report.rows()
    }

    #[test]
    fn rows_are_aligned_under_their_headings_and_each_trouble_has_its_hint() {
        assert_eq!(
            render(&rows(), false),
            "\
configuration
  ✓ settings     valid
TCP
  × broker:9092  refused
    hint: Start the broker.
SASL
  – broker:9092  not looked at: there is no connection
limits
  ‼ memory       little
    hint: Give it more.

× 1 failed   ‼ 1 with a warning   ✓ 1 ok   – 1 not looked at"
        );
    }

    #[test]
    fn colours_add_nothing_but_colours() {
        let plain = render(&rows(), false);
        let mut coloured = render(&rows(), true);
        assert!(coloured.contains("\x1b[31m×\x1b[0m"), "{coloured}");
        for code in ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, plain);
    }
}
