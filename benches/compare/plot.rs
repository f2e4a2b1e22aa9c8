//! The report as a picture: horizontal bars with the middle half of the values as a line across their ends.

use std::fmt::Write;

use crate::report::{Summary, Table};

const LABELS: f64 = 70.0;
const WIDTH: f64 = 720.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
const FIGURES: f64 = 110.0;

/// Draws some measures of a table, one group of bars each, as SVG that is readable on light and dark pages.
pub(crate) fn draw(table: &Table, measures: &[&str]) -> String {
    let groups: Vec<_> =
        measures.iter().filter_map(|name| table.rows.iter().find(|row| row.measure == *name)).collect();
    let mut body = String::new();
    let mut y = 10.0;
    for row in groups {
        let _ = writeln!(
            body,
            r#"<text x="0" y="{:.0}" class="head">{} ({})</text>"#,
            y + 14.0,
            row.measure,
            row.unit
        );
        y += 26.0;
        let bars: Vec<(&String, Summary)> = table
            .columns
            .iter()
            .zip(&row.values)
            .filter_map(|(name, value)| Some((name, (*value)?)))
            .collect();
        let largest = bars.iter().map(|(_, value)| value.upper_quartile).fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - LABELS - FIGURES) / largest;
        for (name, value) in bars {
            bar(&mut body, name, value, scale, y);
            y += STEP;
        }
        y += 14.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {y:.0}\" width=\"{WIDTH:.0}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<style>text{{fill:#57606a}}.head{{font-weight:bold}}.bar{{fill:#8c959f}}.own{{fill:#1f6feb}}\
         .spread{{stroke:#d29922;stroke-width:2}}</style>\n{body}</svg>\n"
    )
}

fn bar(body: &mut String, name: &str, value: Summary, scale: f64, y: f64) {
    let length = value.median * scale;
    let (from, to) = (LABELS + value.lower_quartile * scale, LABELS + value.upper_quartile * scale);
    let class = if name == "urunc" { "own" } else { "bar" };
    let (text_y, middle) = (y + 14.0, y + BAR / 2.0);
    let _ =
        writeln!(body, r#"<text x="{:.0}" y="{text_y:.1}" text-anchor="end">{name}</text>"#, LABELS - 8.0);
    let _ = writeln!(
        body,
        r#"<rect x="{LABELS:.0}" y="{y:.1}" width="{length:.1}" height="{BAR:.0}" class="{class}"/>"#
    );
    let _ = writeln!(
        body,
        r#"<line x1="{from:.1}" y1="{middle:.1}" x2="{to:.1}" y2="{middle:.1}" class="spread"/>"#
    );
    let end = to.max(LABELS + length) + 8.0;
    let _ = writeln!(
        body,
        r#"<text x="{end:.1}" y="{text_y:.1}">{}</text>"#,
        crate::markdown::number(value.median)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_measured_column_is_a_bar() {
        let mut table = Table::new("Life", ["floor", "urunc", "youki"]);
        table.row("cycle", "ms", [vec![5.0], vec![8.0], vec![]]);
        let svg = draw(&table, &["cycle", "missing"]);
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains(">urunc</text>") && !svg.contains("youki"), "{svg}");
        // The longest bar fills the space between the labels and the figures.
        assert!(svg.contains(r#"width="540.0""#) && svg.contains(r#"width="337.5""#), "{svg}");
    }
}
