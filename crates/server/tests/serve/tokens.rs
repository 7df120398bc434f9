//! Tokens: what each may do where, and how that changes while the server runs.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use steadfast_grpc::wire;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{
    Client, NEVER, Server, assert_complains, assert_refused, client, create_hub, get, printed, run, soon,
    start, text,
};

/// A new token with these grants, and its line.
fn token(name: &str, grants: &str) -> (String, String) {
    let printed = printed(&run(&["token", "new", "--name", name, "--grant", grants]));
    let (token, line) = printed.trim_end().split_once('\n').unwrap();
    (token.to_owned(), line.to_owned())
}

fn write(folder: &Path, lines: &[&str]) -> PathBuf {
    let path = folder.join("tokens");
    std::fs::write(&path, lines.join("\n")).unwrap();
    path
}

/// A server whose token file has these lines.
fn serve(lines: &[&str]) -> (Server, PathBuf) {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let file = write(folder.path(), lines);
    let server = Server::start_in(folder, &["--create-hubs", "--token-file", text(&file)]);
    assert!(server.ready.contains("tokens=on"), "{}", server.ready);
    (server, file)
}

/// One call for each role, with whether it was let through.
async fn allowed(client: &mut Client) -> [bool; 4] {
    let through = |outcome: Result<(), Status>| match outcome {
        Err(status) if status.code() == Code::PermissionDenied => false,
        // What else is said comes from behind the gate.
        _ => true,
    };
    let read = soon(client.get_instance(get("one"))).await.map(|_| ());
    let write = start(client, "one").await;
    let worker = soon(client.complete_activity_task(wire::ActivityResponse::default())).await.map(|_| ());
    let admin = create_hub(client, false).await;
    [read, write, worker, admin].map(through)
}

#[tokio::test]
async fn a_token_may_do_what_its_roles_allow_in_its_hubs() {
    let tokens = [
        ("reader", "read@orders", [true, false, false, false]),
        ("writer", "write@orders", [false, true, false, false]),
        ("worker", "worker@orders", [false, false, true, false]),
        ("both", "read@orders,write@orders", [true, true, false, false]),
        ("admin", "admin@orders", [true; 4]),
        ("stranger", "admin@bills", [false; 4]),
        ("root", "admin@*", [true; 4]),
    ]
    .map(|(name, grants, may)| (token(name, grants), may));
    let lines: Vec<_> = tokens.iter().map(|((_, line), _)| line.as_str()).collect();
    let (server, _) = serve(&lines);
    let channel = server.channel().await;
    for ((token, line), may) in &tokens {
        let mut caller = client(channel.clone(), "orders", token);
        assert_eq!(allowed(&mut caller).await, *may, "{line}");
        soon(caller.hello(())).await.unwrap();
        // Workers fetch long histories.
        let request =
            wire::StreamInstanceHistoryRequest { instance_id: "one".to_owned(), ..Default::default() };
        let history = soon(caller.stream_instance_history(request)).await;
        let denied = history.is_err_and(|status| status.code() == Code::PermissionDenied);
        assert_eq!(denied, !(may[0] || may[2]), "{line}");
    }
    server.stop().await;
}

#[tokio::test]
async fn calls_that_come_together_are_allowed_one_by_one() {
    let (token, line) = token("reader", "read@orders");
    let (server, _) = serve(&[&line]);
    let url = format!("http://{}", server.addresses[0]);
    let reader = steadfast_remote::Server::at(url).hub("orders").token(token);
    let reader = soon(steadfast_remote::Client::connect(reader)).await.unwrap();
    let missing = soon(reader.state("one")).await.unwrap_err();
    assert!(matches!(missing, steadfast_engine::ClientError::InstanceNotFound { .. }), "{missing}");
    let denied = soon(reader.terminate("one", "", false)).await.unwrap_err();
    let is_denied = |error: &steadfast_engine::ClientError| matches!(error, steadfast_engine::ClientError::Refused { code, .. } if code == "PermissionDenied");
    assert!(is_denied(&denied), "{denied}");
    drop(reader);
    server.stop().await;
}

#[tokio::test]
async fn callers_without_a_token_of_the_server_are_told_so() {
    let (token, line) = token("ci", "admin");
    let (server, _) = serve(&[&line]);
    let channel = server.channel().await;
    let mut nobody = client(channel.clone(), "", "");
    assert_refused(soon(nobody.hello(())).await, Code::Unauthenticated, &["authorization: Bearer"]);
    let (unknown, _) = crate::tokens::token("ci", "admin");
    for wrong in [unknown.as_str(), &token[1..], &format!("{token}0"), "x"] {
        let mut caller = client(channel.clone(), "", wrong);
        assert_refused(soon(caller.hello(())).await, Code::Unauthenticated, &["not known"]);
    }
    // Who may not call learns nothing of which hubs there are.
    assert_refused(soon(client(channel, "nowhere", "x").hello(())).await, Code::Unauthenticated, &[]);
    server.stop().await;
}

/// Waits until the server answers this caller so.
async fn until(channel: &Channel, token: &str, wanted: Code) {
    let mut caller = client(channel.clone(), "", token);
    soon(async {
        loop {
            let code = caller.hello(()).await.map_or_else(|status| status.code(), |_| Code::Ok);
            if code == wanted {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn tokens_come_and_go_without_a_restart() {
    let (first, first_line) = token("first", "admin");
    let (second, second_line) = token("second", "admin");
    let (server, file) = serve(&[&first_line]);
    let folder = file.parent().unwrap().to_owned();
    let channel = server.channel().await;
    let mut caller = client(channel.clone(), "", &first);
    let wait = tokio::spawn(async move { caller.wait_for_instance_completion(get(NEVER)).await });
    until(&channel, &second, Code::Unauthenticated).await;

    write(&folder, &[&first_line, &second_line]);
    server.signal(Signal::HUP);
    until(&channel, &second, Code::Ok).await;

    // What cannot be used changes nothing.
    write(&folder, &["nonsense"]);
    server.signal(Signal::HUP);
    until(&channel, &first, Code::Ok).await;

    // The server sees by itself that the file has changed, and ends what the first one had under way.
    write(&folder, &[&second_line]);
    until(&channel, &first, Code::Unauthenticated).await;
    assert_refused(soon(wait).await.unwrap(), Code::Unauthenticated, &["not known"]);
    until(&channel, &second, Code::Ok).await;
    server.stop().await;
}

#[test]
fn token_files_that_cannot_be_meant_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let serve = |lines: &[&str]| {
        let file = write(folder.path(), lines);
        run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", "/nowhere", "--token-file", text(&file)])
    };
    assert_complains(&serve(&["# nobody"]), &["holds no token"]);
    assert_complains(&serve(&["", "ci sha256:12 read"]), &["line 2", "64 hexadecimal digits"]);
    let (_, line) = token("ci", "read");
    assert_complains(&serve(&[&line.replace("read", "reed")]), &["line 1", "no role"]);
    assert_complains(&serve(&[&line, &line]), &["line 2", "another line"]);
    let refused = run(&["token", "new", "--name", "two words", "--grant", "read"]);
    assert!(!refused.status.success());
}
