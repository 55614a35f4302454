//! What became of a transaction's rows: how many CDF has acknowledged, and for how many the outcome is unknown.

use crate::cdf::buffer::Destination;

/// The rows that go to one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// What a message calls the rows: `events`.
    pub noun: String,
    /// The full name of their destination.
    pub name: String,
    pub rows: usize,
    /// Acknowledged rows.
    pub accepted: usize,
    /// Rows in requests without an answer that tells their outcome.
    pub unknown: usize,
    /// Accepted rows without a key.
    pub blind: usize,
    /// Rows of unknown outcome without a key.
    pub blind_unknown: usize,
    /// Rows that were not acknowledged as a whole, but some of their cells.
    pub in_part: usize,
    /// Time series that were created for their points.
    pub created: usize,
}

impl Count {
    pub fn of(destination: &Destination, rows: usize) -> Count {
        let noun = destination.resource.rows().into_owned();
        Count { noun, name: destination.name(), rows, ..Count::default() }
    }
}

/// Summarizes what had been accepted: `2000 of 5000 events accepted, 1000 more may have been accepted`.
pub fn brief(counts: &[&Count]) -> String {
    let sum = |of: fn(&Count) -> usize| counts.iter().map(|count| of(count)).sum::<usize>();
    let (accepted, unknown, created) = (sum(|c| c.accepted), sum(|c| c.unknown), sum(|c| c.created));
    let touched: Vec<&&Count> = counts.iter().filter(|count| count.accepted + count.unknown > 0).collect();
    let list = |of: fn(&Count) -> usize| {
        let some: Vec<&&&Count> = touched.iter().filter(|count| of(count) > 0).collect();
        match some.len() {
            1 | 2 => {
                let each = some.iter().map(|count| format!("{} of {} {}", of(count), count.rows, count.noun));
                each.collect::<Vec<_>>().join(" and ")
            }
            _ => format!("{} of {} rows", some.iter().map(|c| of(c)).sum::<usize>(), sum(|c| c.rows)),
        }
    };
    let mut text = match (accepted, unknown) {
        (0, 0) if created > 0 || sum(|c| c.in_part) > 0 => "no row accepted".to_owned(),
        (0, 0) => "nothing accepted".to_owned(),
        (0, _) => format!("nothing acknowledged, {} may have been accepted", list(|c| c.unknown)),
        (_, 0) => format!("{} accepted", list(|c| c.accepted)),
        _ => format!("{} accepted, {unknown} more may have been accepted", list(|c| c.accepted)),
    };
    if sum(|c| c.in_part) > 0 {
        text.push_str(&format!(", {} in part", sum(|c| c.in_part)));
    }
    if created > 0 {
        text.push_str(&format!(", {created} time series created"));
    }
    text
}

/// Tells the same in full, by destination.
pub fn line(counts: &[&Count]) -> String {
    let list = |of: fn(&Count) -> usize| {
        let some = counts.iter().filter(|count| of(count) > 0);
        some.map(|count| format!("{} of {} {}", of(count), count.rows, count.name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (accepted, unknown) = (list(|c| c.accepted), list(|c| c.unknown));
    let (in_part, created) = (list(|c| c.in_part), counts.iter().map(|count| count.created).sum::<usize>());
    let mut text = match (accepted.is_empty(), unknown.is_empty()) {
        (true, true) if in_part.is_empty() && created == 0 => "CDF had accepted nothing of this transaction".to_owned(),
        (true, true) => "CDF had accepted no row of this transaction whole".to_owned(),
        (true, false) => format!(
            "CDF had acknowledged nothing of this transaction; of what was under way, {unknown} may have been accepted"
        ),
        (false, true) => format!("CDF had accepted, and keeps: {accepted}"),
        (false, false) => format!(
            "CDF had accepted, and keeps: {accepted}; of what was under way, {unknown} may have been accepted"
        ),
    };
    if !in_part.is_empty() {
        text.push_str(&format!("; some cells of {in_part} had been accepted"));
    }
    if created > 0 {
        text.push_str(&format!("; {created} time series had been created"));
    }
    text.push('.');
    text
}

/// Says what happens if the same load runs again.
pub fn advice(counts: &[&Count]) -> Option<String> {
    let sum = |of: fn(&Count) -> usize| counts.iter().map(|count| of(count)).sum::<usize>();
    let rows = |count: usize| format!("{count} row{} without external_id", if count == 1 { "" } else { "s" });
    match (
        sum(|c| c.accepted + c.unknown + c.in_part + c.created),
        sum(|c| c.blind),
        sum(|c| c.blind_unknown),
    ) {
        (0, ..) => None,
        (_, 0, 0) => Some("Running the same load again ends in the same state.".to_owned()),
        (_, 0, unknown) => Some(format!(
            "Running the same load again may create {} once more: look for them in CDF first.",
            rows(unknown)
        )),
        (_, blind, 0) => Some(format!("Running the same load again creates {} once more.", rows(blind))),
        (_, blind, unknown) => Some(format!(
            "Running the same load again creates {} once more, and perhaps {unknown} others.",
            rows(blind)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(accepted: usize, unknown: usize) -> Count {
        Count {
            noun: "events".into(),
            name: "events".into(),
            rows: 5000,
            accepted,
            unknown,
            ..Count::default()
        }
    }

    #[test]
    fn what_is_unknown_is_never_nothing() {
        assert_eq!(brief(&[&events(0, 0)]), "nothing accepted");
        assert_eq!(brief(&[&events(0, 7)]), "nothing acknowledged, 7 of 5000 events may have been accepted");
        assert_eq!(brief(&[&events(9, 0)]), "9 of 5000 events accepted");
        assert_eq!(brief(&[&events(9, 7)]), "9 of 5000 events accepted, 7 more may have been accepted");
        for count in [events(0, 7), events(9, 7)] {
            assert!(
                line(&[&count]).contains("7 of 5000 events may have been accepted"),
                "{}",
                line(&[&count])
            );
            assert!(!line(&[&count]).contains("accepted nothing"));
        }
        let created = Count { created: 3, ..events(0, 0) };
        assert_eq!(brief(&[&created]), "no row accepted, 3 time series created");
        assert!(!line(&[&created]).contains("accepted nothing"), "{}", line(&[&created]));
        let in_part = Count { in_part: 2, ..events(0, 0) };
        assert_eq!(brief(&[&in_part]), "no row accepted, 2 in part");
    }

    #[test]
    fn many_destinations_are_counted_together() {
        let counts = [events(1, 0), events(2, 0), events(3, 0), events(0, 0)];
        let counts: Vec<&Count> = counts.iter().collect();
        assert_eq!(brief(&counts[..2]), "1 of 5000 events and 2 of 5000 events accepted");
        assert_eq!(brief(&counts), "6 of 20000 rows accepted");
    }

    #[test]
    fn rows_without_a_key_are_counted() {
        assert_eq!(advice(&[&events(0, 0)]), None);
        assert!(advice(&[&events(1, 0)]).unwrap().contains("same state"));
        let unknown = Count { blind_unknown: 7, ..events(0, 7) };
        assert!(advice(&[&unknown]).unwrap().contains("may create 7 rows"));
        let blind = Count { blind: 9, ..events(9, 0) };
        assert!(advice(&[&blind]).unwrap().contains("creates 9 rows"));
    }
}
