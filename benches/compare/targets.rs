//! What urunc is to reach, and whether it does: decided on the tables, which hold figures of one run.

use serde::Serialize;

use crate::report::Table;

/// A bound for urunc's median.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// At most this.
    Limit(f64),
    /// At most this many times another column's.
    AtMost(f64, &'static str),
    /// At least this many times another column's.
    AtLeast(f64, &'static str),
}

/// A measure and its bounds.
struct Target {
    table: &'static str,
    measure: &'static str,
    column: &'static str,
    bounds: &'static [Bound],
}

const URUNC: &str = "urunc";

#[rustfmt::skip]
const TARGETS: &[Target] = {
    use Bound::{AtLeast, Limit, AtMost};
    const LIFE: &str = crate::cycles::TITLE;
    const STORM: &str = crate::parallel::TITLE;
    const SHIM: &str = crate::shim::TITLE;
    const CROWD: &str = crate::crowd::TITLE;
    &[
        Target { table: LIFE, measure: "whole cycle, wall", column: URUNC, bounds: &[AtMost(1.6, "floor"), AtMost(0.4, "crun")] },
        Target { table: LIFE, measure: "whole cycle, CPU", column: URUNC, bounds: &[AtMost(1.6, "floor"), AtMost(0.45, "crun")] },
        Target { table: LIFE, measure: "create to first byte", column: URUNC, bounds: &[AtMost(1.6, "floor"), AtMost(0.4, "crun")] },
        Target { table: STORM, measure: "20 at once", column: URUNC, bounds: &[AtLeast(0.5, "floor"), AtLeast(2.0, "crun")] },
        Target { table: STORM, measure: "100 at once", column: URUNC, bounds: &[AtLeast(0.5, "floor"), AtLeast(2.0, "crun")] },
        Target { table: STORM, measure: "lost", column: URUNC, bounds: &[Limit(0.0)] },
        Target { table: crate::network::TITLE, measure: "attach", column: URUNC, bounds: &[Limit(1.0)] },
        Target { table: LIFE, measure: "peak memory of any command", column: URUNC, bounds: &[AtMost(1.0, "crun")] },
        Target { table: crate::calls::TITLE, measure: "all four", column: URUNC, bounds: &[Limit(600.0)] },
        Target { table: SHIM, measure: "idle shim alone, proportional memory", column: URUNC, bounds: &[Limit(4.0)] },
        Target { table: SHIM, measure: "each of 10 idle shims, unique memory", column: URUNC, bounds: &[Limit(0.5)] },
        Target { table: SHIM, measure: "shim start, CPU", column: URUNC, bounds: &[Limit(3.0)] },
        Target { table: SHIM, measure: "ctr run --rm, CPU of shim and runtime", column: URUNC, bounds: &[Limit(20.0)] },
        Target { table: CROWD, measure: "list, by container", column: "ratio", bounds: &[Limit(2.0)] },
        Target { table: CROWD, measure: "create", column: "ratio", bounds: &[Limit(2.0)] },
        Target { table: CROWD, measure: "delete", column: "ratio", bounds: &[Limit(2.0)] },
    ]
};

/// What became of a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) measure: String,
    /// In words.
    pub(crate) target: String,
    /// urunc's median with its unit, and the same relative to what it is compared with.
    pub(crate) measured: String,
    /// Unknown if something to compare with is missing.
    pub(crate) met: Option<bool>,
}

/// Looks at each target whose table was measured.
pub(crate) fn judge(tables: &[Table]) -> Vec<Verdict> {
    let known = |target: &&Target| tables.iter().any(|table| table.title == target.table);
    TARGETS.iter().filter(known).map(|target| verdict(target, tables)).collect()
}

fn verdict(target: &Target, tables: &[Table]) -> Verdict {
    let table = tables.iter().find(|table| table.title == target.table);
    let median = |column: &str| table?.get(target.measure, column).map(|summary| summary.median);
    let unit = table
        .filter(|_| target.column != "ratio")
        .and_then(|table| table.rows.iter().find(|row| row.measure == target.measure))
        .map_or("", |row| row.unit);
    let ours = median(target.column);
    let (mut words, mut figures, mut met) = (Vec::new(), Vec::new(), Some(true));
    if let Some(ours) = ours {
        figures.push(format!("{} {unit}", crate::markdown::number(ours)).trim_end().to_owned());
    }
    for bound in target.bounds {
        let (text, holds) = match *bound {
            Bound::Limit(limit) => {
                (format!("≤ {} {unit}", crate::markdown::number(limit)), ours.map(|ours| ours <= limit))
            }
            Bound::AtMost(factor, other) => {
                let ratio = relative(ours, median(other), other, &mut figures);
                (format!("≤ {factor} × {other}"), ratio.map(|ratio| ratio <= factor))
            }
            Bound::AtLeast(factor, other) => {
                let ratio = relative(ours, median(other), other, &mut figures);
                (format!("≥ {factor} × {other}"), ratio.map(|ratio| ratio >= factor))
            }
        };
        words.push(text.trim_end().to_owned());
        met = match (met, holds) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
    }
    Verdict {
        measure: format!("{}: {}", target.table, target.measure),
        target: words.join(", "),
        measured: figures.join(", "),
        met,
    }
}

fn relative(ours: Option<f64>, theirs: Option<f64>, other: &str, figures: &mut Vec<String>) -> Option<f64> {
    let ratio = ours? / theirs?;
    figures.push(format!("{ratio:.2} × {other}"));
    Some(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_missed_or_unknown() {
        let judged = |floor: Vec<f64>, urunc: f64, crun: Vec<f64>| {
            let mut table = Table::new(crate::cycles::TITLE, ["floor", "urunc", "crun"]);
            table.row("whole cycle, wall", "ms", [floor, vec![urunc], crun]);
            judge(&[table])[0].clone()
        };
        assert_eq!(judged(vec![10.0], 16.0, vec![40.0]).met, Some(true));
        assert_eq!(judged(vec![10.0], 16.1, vec![50.0]).met, Some(false));
        assert_eq!(judged(vec![10.0], 16.0, vec![]).met, None);
        assert_eq!(judged(vec![], 16.0, vec![30.0]).met, Some(false));
        assert_eq!(judged(vec![10.0], 15.0, vec![40.0]).measured, "15 ms, 1.50 × floor, 0.38 × crun");
    }
}
