//! RFC 3339 time stamps, as CRI-O and Podman read them in the `created` field of the state document.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment as RFC 3339 text, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Timestamp(String);

impl Timestamp {
    /// This moment in UTC, with nanoseconds.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<SystemTime> for Timestamp {
    /// Years before 1970 are shown as 1970: no container was created then.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let nanos = since.subsec_nanos();
        Self(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z"))
    }
}

/// Year, month and day of a day counted from 1970-01-01 in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year and the months follow the
/// pattern of 153 days in five months.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_march_0000 = days + 719_468;
    let (era, day_of_era) = (since_march_0000 / 146_097, since_march_0000 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        if is_rfc3339(&text) { Ok(Self(text)) } else { Err(InvalidTimestamp { text }) }
    }
}

/// Checks the shape (RFC 3339, section 5.6), not the calendar.
fn is_rfc3339(text: &str) -> bool {
    fn shaped(text: &[u8], shape: &[u8]) -> bool {
        text.len() == shape.len()
            && text.iter().zip(shape).all(|(c, s)| if *s == b'0' { c.is_ascii_digit() } else { c == s })
    }
    let Some((moment, rest)) = text.as_bytes().split_at_checked(19) else { return false };
    let digits = match rest {
        [b'.', fraction @ ..] => fraction.iter().take_while(|c| c.is_ascii_digit()).count() + 1,
        _ => 0,
    };
    let zone = &rest[digits..];
    shaped(moment, b"0000-00-00T00:00:00")
        && digits != 1
        && (zone == b"Z" || shaped(zone, b"+00:00") || shaped(zone, b"-00:00"))
}

/// A text that is no RFC 3339 time stamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an RFC 3339 time")]
pub struct InvalidTimestamp {
    /// The text.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments_are_written_right() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000000Z"),
            (1_767_225_600, "2026-01-01T00:00:00.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Timestamp::from(time).as_str(), expected);
        }
    }

    #[test]
    fn only_rfc3339_is_read() {
        for good in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+02:00", "2026-01-01T00:00:00-11:30"] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in ["", "yesterday", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00.Z"] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_sorts_like_time(a in 0..253_402_300_799_u64, b in 0..253_402_300_799_u64) {
            let stamp = |seconds| Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert!(is_rfc3339(stamp(a).as_str()));
            prop_assert_eq!(a.cmp(&b), stamp(a).as_str().cmp(stamp(b).as_str()));
        }
    }
}
