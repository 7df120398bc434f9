//! Deadlines that callers send with their calls.

use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Response};

const HEADER: &str = "grpc-timeout";

/// tonic ends a call that is late with `CANCELLED`, which SDKs take for something else than their own timeout. So the
/// call ends a little before that, with the status that the protocol has for it.
const AHEAD: Duration = Duration::from_millis(10);

/// Ends with `DEADLINE_EXCEEDED` what is not done when the caller no longer waits. `answer` is pinned elsewhere, because whatever is
/// handed to a future by value is in it twice.
pub(super) async fn within(
    deadline: Option<Duration>,
    answer: impl Future<Output = Result<Response<Body>, Status>> + Unpin,
) -> Result<Response<Body>, Status> {
    let Some(deadline) = deadline else { return answer.await };
    match tokio::time::timeout(deadline.saturating_sub(AHEAD), answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("the caller's deadline has passed")),
    }
}

/// How long the caller waits: at most eight digits and a unit. Something else is no deadline.
pub(super) fn deadline_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, text.parse().expect("it is a header"));
        deadline_of(&headers)
    }

    #[test]
    fn every_unit_is_read() {
        assert_eq!(deadline("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(deadline("3M"), Some(Duration::from_secs(180)));
        assert_eq!(deadline("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(deadline("500m"), Some(Duration::from_millis(500)));
        assert_eq!(deadline("7u"), Some(Duration::from_micros(7)));
        assert_eq!(deadline("8n"), Some(Duration::from_nanos(8)));
        assert_eq!(deadline_of(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_no_deadline_is_none() {
        for text in ["", "S", "5", "-5S", "5 S", "+5S", "123456789S", "5s"] {
            assert_eq!(deadline(text), None, "{text:?}");
        }
    }
}
