//! Very many clients that wait, and many workers.

use futures_util::future::Either;
use futures_util::future::{join_all, select};
use steadfast_grpc::wire;
use tonic::Code;

use crate::support::{Server, client, get, soon, start};

const WAITS: usize = 10_000;
const CONNECTIONS: usize = 50;
const WORKERS: usize = 200;

/// What one more wait may cost the server. A debug build needs more than one that is used.
const BYTES_PER_WAIT_MAX: usize = 32 << 10;

/// The memory that the process has now.
fn resident_bytes(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn ten_thousand_waits_and_two_hundred_workers_are_held_at_once() {
    let server = Server::start(&[]);
    let channels = join_all((0..CONNECTIONS).map(|_| server.channel()));
    let channels = soon(channels).await;
    let before = resident_bytes(server.process());

    let mut streams = Vec::new();
    for at in 0..WORKERS {
        let mut worker = client(channels[at % CONNECTIONS].clone(), "", "");
        streams.push(soon(worker.get_work_items(wire::GetWorkItemsRequest::default())).await.unwrap());
    }
    let waits = (0..WAITS).map(|at| {
        let mut waiting = client(channels[at % CONNECTIONS].clone(), "", "");
        async move { waiting.wait_for_instance_completion(get(&format!("never-{at}"))).await }
    });
    let waits = Box::pin(join_all(waits));
    // On each connection, all its waits were sent before this call.
    let hellos = Box::pin(join_all(channels.iter().map(|channel| {
        let mut caller = client(channel.clone(), "", "");
        async move { caller.hello(()).await }
    })));
    let Either::Right((hellos, waits)) = soon(select(waits, hellos)).await else {
        panic!("no instance has ended");
    };
    assert!(hellos.iter().all(Result::is_ok));
    let grown = resident_bytes(server.process()).saturating_sub(before);
    let per_wait = grown / (WAITS + WORKERS);
    assert!(per_wait < BYTES_PER_WAIT_MAX, "{per_wait} bytes for each");

    // Others are served as ever.
    start(&mut server.client().await, "one").await.unwrap();
    let stopping = tokio::spawn(server.stop());
    for wait in soon(waits).await {
        assert_eq!(wait.unwrap_err().code(), Code::Unavailable);
    }
    drop(streams);
    soon(stopping).await.unwrap();
}
