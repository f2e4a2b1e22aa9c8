//! The flags of `events`, which are runc's.

use std::time::Duration;

/// `urunc events`
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Time between two measurements, such as 500ms or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub interval: Duration,

    /// Print one measurement and exit
    #[arg(long)]
    pub stats: bool,

    /// Container id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// A duration as Go's tools write it: numbers, fractions permitted, each with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is no duration; use numbers with units, such as 500ms, 5s or 1m30s");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refused)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(refused()),
        };
        let number: f64 = number.parse().map_err(|_| refused())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| refused())?;
        sum = sum.checked_add(part).ok_or_else(refused)?;
        rest = after;
    }
    if sum.is_zero() { Err("the interval must be greater than 0".to_owned()) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_runc_reads_them() {
        for (text, expected) in [
            ("5s", Some(Duration::from_secs(5))),
            ("500ms", Some(Duration::from_millis(500))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("1.5h", Some(Duration::from_secs(5400))),
            ("20us", Some(Duration::from_micros(20))),
            ("0s", None),
            ("", None),
            ("5", None),
            ("-1s", None),
            ("5x", None),
            ("1..5s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        }
    }
}
