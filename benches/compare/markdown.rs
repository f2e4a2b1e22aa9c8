//! The report for people.

use std::fmt::Write;

use crate::report::{Report, Summary, Table};

/// A figure with about three digits.
pub(crate) fn number(value: f64) -> String {
    let text = match value.abs() {
        1000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    match text.trim_end_matches('0').trim_end_matches('.') {
        _ if !text.contains('.') => text,
        short => short.to_owned(),
    }
}

/// The whole report.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::from(
        "# Measurements\n\nWritten by `make bench`. Medians, in brackets the middle half of the values; after them each figure relative \
         to the floor's (f) and to crun's (c) in the same run. Runtimes took turns in random order.\n\n",
    );
    for (name, value) in &report.circumstances {
        let _ = writeln!(text, "- {name}: {value}");
    }
    if !report.skipped.is_empty() {
        text.push_str("\nNot measured:\n\n");
        report.skipped.iter().for_each(|line| text.push_str(&format!("- {line}\n")));
    }
    text.push_str("\n## Targets\n\n| measure | target | measured | |\n|---|---|---|---|\n");
    for verdict in &report.verdicts {
        let mark = match verdict.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "unknown",
        };
        let _ =
            writeln!(text, "| {} | {} | {} | {mark} |", verdict.measure, verdict.target, verdict.measured);
    }
    for table in &report.tables {
        text.push('\n');
        text.push_str(&render_table(table));
    }
    text
}

fn render_table(table: &Table) -> String {
    let mut text = format!("## {}\n\n", table.title);
    for note in &table.notes {
        let _ = writeln!(text, "{note}\n");
    }
    let _ = writeln!(text, "| | {} |", table.columns.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(table.columns.len()));
    for row in &table.rows {
        let of = |column: &str| table.get(&row.measure, column).map(|summary| summary.median);
        let bases = [("f", of("floor")), ("c", of("crun"))];
        let cells: Vec<String> = row.values.iter().map(|value| cell(value.as_ref(), &bases)).collect();
        let unit = if row.unit.is_empty() { String::new() } else { format!(" ({})", row.unit) };
        let _ = writeln!(text, "| {}{unit} | {} |", row.measure, cells.join(" | "));
    }
    text
}

fn cell(value: Option<&Summary>, bases: &[(&str, Option<f64>)]) -> String {
    let Some(value) = value else { return "–".to_owned() };
    let mut text = number(value.median);
    if value.count > 1 {
        let _ = write!(text, " ({}–{})", number(value.lower_quartile), number(value.upper_quartile));
    }
    let ratios: Vec<String> = bases
        .iter()
        .filter_map(|(name, base)| base.filter(|base| *base > 0.0).map(|base| (name, value.median / base)))
        .map(|(name, ratio)| format!("{} {name}", number(ratio)))
        .collect();
    if !ratios.is_empty() {
        let _ = write!(text, "<br>{}", ratios.join(" · "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_about_three_digits() {
        for (value, text) in [
            (1645.3, "1645"),
            (600.0, "600"),
            (32.34, "32.3"),
            (5.0, "5"),
            (0.456, "0.46"),
            (0.0, "0"),
            (100.0, "100"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_cell_shows_spread_and_ratios() {
        let mut table = Table::new("Life", ["floor", "urunc", "crun"]);
        table.row("cycle", "ms", [vec![5.0], vec![8.0, 8.0, 9.0, 7.0], vec![]]);
        let text = render_table(&table);
        assert!(text.contains("| cycle (ms) | 5<br>1 f | 8 (7.5–8.5)<br>1.6 f | – |"), "{text}");
    }
}
