//! Histories that others printed, and those that nobody should have.
#![allow(clippy::unwrap_used)]

use steadfast_core::history_json::{HistoryJsonError, read};
use steadfast_core::{EventKind, OrchestrationStatus, Timestamp};

/// As the .NET packages print it: numbers for types, nested instances, the old reason beside the failure details.
const DOTNET: &str = r#"[
  {"EventId":-1,"EventType":12,"IsPlayed":false,"Timestamp":"2026-03-01T10:00:00.1234567Z"},
  {"OrchestrationInstance":{"InstanceId":"order-17","ExecutionId":"0af7651916cd43dd8448eb211c80319c"},
   "ParentInstance":{"Name":"parent","OrchestrationInstance":{"InstanceId":"p","ExecutionId":"not a guid"},"TaskScheduleId":3,"Version":""},
   "Name":"order","Version":"2.0","Input":"{\"items\":3}","Tags":{"tenant":"blue"},"Correlation":null,
   "ParentTraceContext":{"TraceParent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","TraceState":null,"Id":"x","SpanId":"y"},
   "ScheduledStartTime":null,"Generation":0,"EventId":-1,"EventType":0,"IsPlayed":false,"Timestamp":"2026-03-01T10:00:00.1Z"},
  {"Name":"charge","Version":"","Input":"[17]","EventId":0,"EventType":4,"Timestamp":"2026-03-01T10:00:00.2Z"},
  {"FireAt":"2026-03-02T10:00:00Z","EventId":1,"EventType":10,"Timestamp":"2026-03-01T10:00:00.2Z"},
  {"EventId":-1,"EventType":13,"Timestamp":"2026-03-01T10:00:00.2Z"},
  {"TaskScheduledId":0,"Reason":"declined","Details":"stack","EventId":-1,"EventType":6,"Timestamp":"2026-03-01T10:00:01Z"},
  {"OrchestrationStatus":3,"Result":null,"FailureDetails":{"ErrorType":"E","ErrorMessage":"m","StackTrace":null,
   "InnerFailure":{"ErrorType":"I","ErrorMessage":"n","IsNonRetriable":true},"IsNonRetriable":false},
   "EventId":2,"EventType":1,"Timestamp":"2026-03-01T10:00:01Z"}
]"#;

/// As protobuf's JSON prints it: small letters, the type as the name of a field, texts for numbers, ids from 1.
const PROTOBUF: &str = r#"{"events":[
  {"eventId":-1,"timestamp":"2026-03-01T10:00:00.123456789Z","orchestratorStarted":{}},
  {"eventId":-1,"timestamp":"2026-03-01T10:00:00Z","executionStarted":{"name":"order","input":"3",
   "orchestrationInstance":{"instanceId":"order-18","executionId":"a-b"}}},
  {"eventId":1,"timestamp":"2026-03-01T10:00:00Z","taskScheduled":{"name":"charge","input":"17"}},
  {"eventId":2,"timestamp":"2026-03-01T10:00:00Z","timerCreated":{"fireAt":"2026-03-02T10:00:00Z"}},
  {"eventId":-1,"timestamp":"2026-03-01T10:00:01Z","taskCompleted":{"taskScheduledId":1,"result":"\"ok\""}},
  {"eventId":-1,"timestamp":"2026-03-01T10:00:01Z","timerFired":{"timerId":2,"fireAt":"2026-03-02T10:00:00Z"}},
  {"eventId":3,"timestamp":"2026-03-01T10:00:01Z","executionCompleted":
   {"orchestrationStatus":"ORCHESTRATION_STATUS_COMPLETED","result":"1"}}
]}"#;

#[test]
fn a_history_of_dotnet_is_read() {
    let dump = read(DOTNET).unwrap();
    assert_eq!(dump.instance.unwrap().as_str(), "order-17");
    let names: Vec<_> = dump.events.iter().map(|event| event.kind.type_name()).collect();
    assert_eq!(
        names,
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "TaskScheduled",
            "TimerCreated",
            "OrchestratorCompleted",
            "TaskFailed",
            "ExecutionCompleted"
        ]
    );
    assert_eq!(dump.events[0].timestamp, Timestamp::from_micros(1_772_359_200_123_456));
    let EventKind::ExecutionStarted(started) = &dump.events[1].kind else { panic!() };
    assert_eq!((started.name.as_str(), started.version.as_str()), ("order", "2.0"));
    assert_eq!(started.input.as_str(), "{\"items\":3}");
    assert_eq!(started.execution.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(started.tags["tenant"], "blue");
    assert_eq!(started.parent.as_ref().unwrap().task_scheduled_id, 3);
    assert!(started.trace.as_ref().unwrap().parent.ends_with("-01"));
    let EventKind::TaskFailed { failure, .. } = &dump.events[5].kind else { panic!() };
    assert_eq!((failure.message.as_str(), failure.stack_trace.as_deref()), ("declined", Some("stack")));
    let EventKind::ExecutionCompleted { status, failure: Some(failure), output: None } = &dump.events[6].kind
    else {
        panic!()
    };
    assert_eq!(*status, OrchestrationStatus::Failed);
    assert!(failure.is_caused_by("I") && failure.chain().nth(1).unwrap().non_retriable);
}

#[test]
fn a_history_in_protobufs_json_is_read_and_its_ids_can_be_moved() {
    let mut dump = read(PROTOBUF).unwrap();
    let same_text_same_execution = read(PROTOBUF).unwrap();
    assert_eq!(dump, same_text_same_execution);
    dump.begin_at_zero();
    let ids: Vec<_> = dump.events.iter().map(|event| event.event_id).collect();
    assert_eq!(ids, [-1, -1, 0, 1, -1, -1, 2]);
    assert!(
        matches!(&dump.events[4].kind, EventKind::TaskCompleted { task_scheduled_id: 0, result } if result.as_str() == "\"ok\"")
    );
    assert!(matches!(&dump.events[5].kind, EventKind::TimerFired { timer_id: 1, .. }));
    let EventKind::ExecutionCompleted { status, .. } = dump.events[6].kind else { panic!() };
    assert_eq!(status, OrchestrationStatus::Completed);
}

#[test]
fn payloads_that_are_printed_as_json_values_become_their_text() {
    let text = r#"[{"EventType":"EventRaised","Timestamp":"2026-03-01T10:00:00Z","Name":"go","Input":{"a":[1,2]}},
        {"EventType":"TaskScheduled","Timestamp":"2026-03-01T10:00:00Z","FunctionName":"f","Input":7}]"#;
    let dump = read(text).unwrap();
    assert!(
        matches!(&dump.events[0].kind, EventKind::EventRaised { input, .. } if input.as_str() == "{\"a\":[1,2]}")
    );
    assert!(
        matches!(&dump.events[1].kind, EventKind::TaskScheduled { input, name, .. } if input.as_str() == "7" && name == "f")
    );
}

#[test]
fn what_cannot_be_read_is_an_error_that_says_where() {
    let says = |text: &str, words: &[&str]| {
        let error = read(text).unwrap_err();
        for word in words {
            assert!(error.to_string().contains(word), "{error}");
        }
        error
    };
    assert!(matches!(says("[", &["JSON"]), HistoryJsonError::NotJson { .. }));
    assert_eq!(says("7", &["array"]), HistoryJsonError::NotAnArray);
    assert_eq!(says("{\"a\":[]}", &["array"]), HistoryJsonError::NotAnArray);
    let unknown = says(r#"[{"EventType":"Strange","Timestamp":"2026-03-01T10:00:00Z"}]"#, &["0", "Strange"]);
    assert!(matches!(unknown, HistoryJsonError::UnknownType { at: 0, .. }));
    says(r#"[{"EventType":99,"Timestamp":"2026-03-01T10:00:00Z"}]"#, &["99"]);
    says(r#"[{"EventType":18,"Timestamp":"2026-03-01T10:00:00Z"}]"#, &["HistoryState"]);
    says("[7]", &["0", "7"]);
    says(r#"[{"EventType":"TaskScheduled","Timestamp":"2026-03-01T10:00:00Z"}]"#, &["TaskScheduled", "Name"]);
    says(r#"[{"EventType":"TaskScheduled","Name":"a","Timestamp":"yesterday"}]"#, &["Timestamp"]);
    says(r#"[{"EventType":"TaskCompleted","Timestamp":"2026-03-01T10:00:00Z"}]"#, &["TaskScheduledId"]);
    says(r#"[{"EventType":"TimerFired","Timestamp":"2026-03-01T10:00:00Z"}]"#, &["TimerId"]);
    says(
        r#"[{"EventType":1,"OrchestrationStatus":"Odd","Timestamp":"2026-03-01T10:00:00Z"}]"#,
        &["OrchestrationStatus"],
    );
}
