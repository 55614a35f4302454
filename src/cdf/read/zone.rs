//! Timestamps that others have written with an offset from UTC, for columns without a time zone: those are UTC.

use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;

use crate::cdf::encode::json::iso8601;

/// Converts a timestamp to UTC; None if the text has no offset, or is no timestamp in ISO 8601.
pub fn in_utc(text: &str) -> Option<String> {
    let (day, clock) = text.split_at_checked("YYYY-MM-DD".len())?;
    let clock = clock.strip_prefix(['T', 't', ' '])?;
    let (clock, offset) = clock.split_at(clock.find(['+', '-'])?);
    let (sign, offset) = offset.split_at(1);
    let (hours, minutes) = match offset.len() {
        2 => (offset, "00"),
        4 => offset.split_at_checked(2)?,
        _ => offset.split_once(':')?,
    };
    let clock = clock.trim_end();
    let seconds = if clock.len() == "HH:MM".len() { ":00" } else { "" };
    let moment = format!("{day}T{clock}{seconds}{sign}{hours}:{minutes}");
    let moment = OffsetDateTime::parse(&moment, &Rfc3339).ok()?;
    iso8601(moment.unix_timestamp_nanos().div_euclid(1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_taken_off() {
        for text in [
            "2024-07-01T00:30:00+02:00",
            "2024-07-01 00:30:00+02",
            "2024-07-01 00:30+0200",
            "2024-06-30T20:00:00.000000-02:30",
        ] {
            assert_eq!(in_utc(text).as_deref(), Some("2024-06-30T22:30:00.000000Z"), "{text}");
        }
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "",
            "2024-07-01",
            "2024-07-01T00:30:00",
            "2024-07-01T00:30:00Z",
            "2024-07-01+02",
            "00:30+02",
            "éééééé",
            "now",
        ] {
            assert_eq!(in_utc(text), None, "{text}");
        }
    }
}
