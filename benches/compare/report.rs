//! What has been measured, as plain data: tables of summaries, written as JSON, Markdown (`markdown.rs`) and a plot (`plot.rs`).

use std::time::Duration;

use serde::Serialize;

/// Median and the middle half of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) lower_quartile: f64,
    pub(crate) upper_quartile: f64,
    pub(crate) count: usize,
}

impl Summary {
    /// Of values in any order; nothing if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = median(&values)?;
        let half = values.len().div_ceil(2);
        Some(Self {
            median: middle,
            lower_quartile: median(values.get(..half)?)?,
            upper_quartile: median(values.get(values.len() - half..)?)?,
            count: values.len(),
        })
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(*sorted.get(middle - 1)?, upper)) }
}

/// Milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A kind of measurement, for each column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) measure: String,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<Option<Summary>>,
}

/// Measurements that belong together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) notes: Vec<String>,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(title: &str, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let columns = columns.into_iter().map(Into::into).collect();
        Self { title: title.to_owned(), notes: Vec::new(), columns, rows: Vec::new() }
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds a row with the values of each column.
    pub(crate) fn row<V: IntoIterator<Item = f64>>(
        &mut self,
        measure: &str,
        unit: &'static str,
        values: impl IntoIterator<Item = V>,
    ) {
        let values = values.into_iter().map(Summary::of).collect();
        self.rows.push(Row { measure: measure.to_owned(), unit, values });
    }

    /// The summary of a measure in a column.
    pub(crate) fn get(&self, measure: &str, column: &str) -> Option<Summary> {
        let column = self.columns.iter().position(|it| it == column)?;
        *self.rows.iter().find(|row| row.measure == measure)?.values.get(column)?
    }
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// What was run, where, and how often.
    pub(crate) circumstances: Vec<(String, String)>,
    /// What could not be measured, and why.
    pub(crate) skipped: Vec<String>,
    pub(crate) verdicts: Vec<crate::targets::Verdict>,
    pub(crate) tables: Vec<Table>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_the_median_and_the_middle_half() {
        let of = |values: &[f64]| Summary::of(values.iter().copied());
        let some = |median, lower_quartile, upper_quartile, count| {
            Some(Summary { median, lower_quartile, upper_quartile, count })
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), some(3.0, 3.0, 3.0, 1));
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), some(2.5, 1.5, 3.5, 4));
        assert_eq!(of(&[5.0, 1.0, 4.0, 2.0, 3.0]), some(3.0, 2.0, 4.0, 5));
    }

    #[test]
    fn a_table_is_asked_by_name() {
        let mut table = Table::new("t", ["a", "b"]);
        table.row("m", "ms", [vec![1.0], vec![]]);
        assert_eq!(table.get("m", "a").unwrap().median, 1.0);
        assert_eq!(table.get("m", "b"), None);
        assert_eq!(table.get("n", "a"), None);
    }
}
