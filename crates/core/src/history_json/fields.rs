//! What writing and reading have in common: the types by name and number, and times as text.

use std::time::Duration;

use crate::state::OrchestrationStatus;
use crate::time::Timestamp;

/// The event types by their numbers in the Durable Task vocabulary.
pub(super) const EVENT_TYPES: [&str; 22] = [
    "ExecutionStarted",
    "ExecutionCompleted",
    "ExecutionFailed",
    "ExecutionTerminated",
    "TaskScheduled",
    "TaskCompleted",
    "TaskFailed",
    "SubOrchestrationInstanceCreated",
    "SubOrchestrationInstanceCompleted",
    "SubOrchestrationInstanceFailed",
    "TimerCreated",
    "TimerFired",
    "OrchestratorStarted",
    "OrchestratorCompleted",
    "EventSent",
    "EventRaised",
    "ContinueAsNew",
    "GenericEvent",
    "HistoryState",
    "ExecutionSuspended",
    "ExecutionResumed",
    "ExecutionRewound",
];

/// The statuses by their numbers.
pub(super) const STATUSES: [OrchestrationStatus; 8] = [
    OrchestrationStatus::Running,
    OrchestrationStatus::Completed,
    OrchestrationStatus::ContinuedAsNew,
    OrchestrationStatus::Failed,
    OrchestrationStatus::Canceled,
    OrchestrationStatus::Terminated,
    OrchestrationStatus::Pending,
    OrchestrationStatus::Suspended,
];

/// ISO 8601 with seven fractional digits, as .NET prints it.
pub(super) fn print_time(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{}0Z", text.trim_end_matches('Z'))
}

/// Reads ISO 8601 in UTC or with an offset; digits beyond microseconds are dropped.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.rsplitn(3, '-');
    let day: i64 = digits(date.next()?, 2)?;
    let month: i64 = digits(date.next()?, 2)?;
    let year: i64 = date.next()?.parse().ok().filter(|year: &i64| year.abs() < 400_000)?;
    let zone = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = time.split(':');
    let hour: i64 = digits(parts.next()?, 2)?;
    let minute: i64 = digits(parts.next()?, 2)?;
    let second: i64 = parts.next().map_or(Some(0), |second| digits(second, 2))?;
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && parts.next().is_none();
    if !valid || hour > 24 || minute > 59 || second > 60 || !fraction.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let seconds = (hour * 60 + minute - parse_zone(zone)?) * 60 + second;
    let day = i128::from(Timestamp::days_from_civil(year, month, day));
    let micros = (day * 86_400 + i128::from(seconds)) * 1_000_000 + i128::from(micros.parse::<i64>().ok()?);
    i64::try_from(micros).ok().map(Timestamp::from_micros)
}

fn digits(text: &str, max: usize) -> Option<i64> {
    let valid = !text.is_empty() && text.len() <= max && text.bytes().all(|it| it.is_ascii_digit());
    valid.then(|| text.parse().ok())?
}

/// An offset in minutes.
fn parse_zone(zone: &str) -> Option<i64> {
    let mut chars = zone.chars();
    let sign = match chars.next() {
        None | Some('Z' | 'z') => return chars.next().is_none().then_some(0),
        Some('-') => -1,
        Some(_) => 1,
    };
    let digits_only: String = chars.filter(|it| *it != ':').collect();
    let offset = digits(&digits_only, 4)?;
    Some(sign * if digits_only.len() <= 2 { offset * 60 } else { offset / 100 * 60 + offset % 100 })
}

/// Seconds with nine fractional digits.
pub(super) fn print_duration(duration: Duration) -> String {
    format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos())
}

pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(Duration::new(seconds.parse().ok()?, nanos.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_several_writers_are_read() {
        let expected = Timestamp::from_micros(1_709_251_199_123_456);
        for text in [
            "2024-02-29T23:59:59.1234560Z",
            "2024-02-29T23:59:59.123456Z",
            "2024-02-29T23:59:59.123456789Z",
            "2024-02-29T23:59:59.123456",
            "2024-02-29 23:59:59.123456",
            "2024-03-01T01:59:59.123456+02:00",
            "2024-03-01T01:59:59.123456+0200",
            "2024-02-29T20:29:59.123456-03:30",
        ] {
            assert_eq!(parse_time(text), Some(expected), "{text}");
        }
        assert_eq!(print_time(expected), "2024-02-29T23:59:59.1234560Z");
        for text in
            ["", "T", "2024-02-29", "2024-13-01T00:00:00Z", "2024-02-29T23:59:xxZ", "x-02-29T23:59:59Z"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn extreme_times_survive() {
        for micros in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(parse_time(&print_time(time)), Some(time), "{time}");
        }
    }
}
