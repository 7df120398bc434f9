//! Several hubs in one server.

use steadfast_grpc::wire;
use tonic::Code;

use crate::support::{
    NEVER, Server, assert_complains, assert_refused, create_hub, exists, get, printed, run, soon, start, text,
};

#[tokio::test]
async fn hubs_are_isolated_from_each_other() {
    let server = Server::start(&["--create-hubs"]);
    let mut by_default = server.client().await;
    let mut named_default = server.client_of("default").await;
    let mut orders = server.client_of("orders").await;
    start(&mut by_default, "one").await.unwrap();
    start(&mut orders, "two").await.unwrap();
    assert!(exists(&mut named_default, "one").await, "a call without a hub is for the default one");
    assert!(!exists(&mut orders, "one").await);
    assert!(exists(&mut orders, "two").await);
    assert!(!exists(&mut by_default, "two").await);

    // Both are there after a restart.
    let (_, folder) = server.stop().await;
    let server = Server::start_in(folder, &[]);
    assert!(exists(&mut server.client().await, "one").await);
    assert!(exists(&mut server.client_of("orders").await, "two").await);
    server.stop().await;
}

#[tokio::test]
async fn a_hub_is_made_by_calls_only_if_the_server_allows_it() {
    let server = Server::start(&[]);
    let mut orders = server.client_of("orders").await;
    assert_refused(start(&mut orders, "one").await, Code::NotFound, &["orders", "create it"]);
    assert_refused(soon(orders.hello(())).await, Code::NotFound, &["orders"]);
    create_hub(&mut orders, false).await.unwrap();
    start(&mut orders, "one").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn names_that_are_none_are_refused() {
    let server = Server::start(&["--create-hubs"]);
    let long = "x".repeat(65);
    for name in ["..", "../x", "a/b", ".", "-x", "a b", "a.b", &long] {
        let mut client = server.client_of(name).await;
        assert_refused(start(&mut client, "one").await, Code::InvalidArgument, &["name of a task hub"]);
        assert_refused(create_hub(&mut client, true).await, Code::InvalidArgument, &["name of a task hub"]);
    }
    let (_, folder) = server.stop().await;
    let data = folder.path().join("data");
    assert_eq!(printed(&run(&["hub", "list", "--data-dir", text(&data)])), "default\n");
}

#[tokio::test]
async fn hubs_are_created_recreated_and_deleted_by_rpc() {
    let server = Server::start(&[]);
    let mut orders = server.client_of("orders").await;
    let delete = wire::DeleteTaskHubRequest {};
    assert_refused(soon(orders.delete_task_hub(delete)).await, Code::NotFound, &["orders"]);
    create_hub(&mut orders, false).await.unwrap();
    assert_refused(create_hub(&mut orders, false).await, Code::AlreadyExists, &["orders"]);
    start(&mut orders, "one").await.unwrap();
    create_hub(&mut orders, true).await.unwrap();
    assert!(!exists(&mut orders, "one").await, "it is a new hub");
    start(&mut orders, "two").await.unwrap();

    // Who waits in it learns that it is gone.
    let mut waiting = orders.clone();
    let wait = tokio::spawn(async move { waiting.wait_for_instance_completion(get(NEVER)).await });
    soon(orders.delete_task_hub(delete)).await.unwrap();
    let status = soon(wait).await.unwrap().unwrap_err();
    assert!([Code::Unavailable, Code::NotFound].contains(&status.code()), "{status}");
    assert_refused(start(&mut orders, "three").await, Code::NotFound, &["orders"]);

    // The default hub can be reset like any other.
    let mut client = server.client().await;
    start(&mut client, "one").await.unwrap();
    soon(client.delete_task_hub(delete)).await.unwrap();
    create_hub(&mut client, true).await.unwrap();
    assert!(!exists(&mut client, "one").await);
    let (_, folder) = server.stop().await;
    let data = folder.path().join("data");
    assert!(std::fs::read_dir(data.join("deleted")).unwrap().next().is_none(), "their files are gone");
    assert_eq!(printed(&run(&["hub", "list", "--data-dir", text(&data)])), "default\n");
}

#[tokio::test]
async fn no_more_hubs_are_open_than_allowed() {
    let server = Server::start(&["--create-hubs", "--hubs-max", "2"]);
    start(&mut server.client_of("second").await, "one").await.unwrap();
    let mut third = server.client_of("third").await;
    assert_refused(start(&mut third, "one").await, Code::ResourceExhausted, &["2 task hubs"]);
    assert!(!exists(&mut server.client().await, "one").await, "those that are open go on");
    server.stop().await;
}

#[test]
fn commands_list_create_and_delete_hubs_while_no_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let hub = |arguments: &[&str]| run(&[&["hub"], arguments, &["--data-dir", text(&data)]].concat());
    assert_complains(&hub(&["list"]), &["there is no data folder", "--data-dir"]);
    printed(&hub(&["create", "orders", "--partitions", "2"]));
    printed(&hub(&["create", "bills"]));
    assert_complains(&hub(&["create", "bills"]), &["'bills' exists already"]);
    assert_eq!(printed(&hub(&["list"])), "bills\norders\n");
    printed(&hub(&["delete", "bills"]));
    assert_complains(&hub(&["delete", "bills"]), &["no task hub 'bills'"]);
    assert_eq!(printed(&hub(&["list"])), "orders\n");

    let server = Server::start_in(folder, &[]);
    for arguments in [&["list"][..], &["create", "x"], &["delete", "orders"]] {
        assert_complains(&hub(arguments), &["in use by the steadfast process", "stop it"]);
    }
    server.stop_now();
}

#[test]
fn a_second_server_on_the_data_folder_is_refused() {
    let server = Server::start(&[]);
    let data = server.data();
    let second = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&data)]);
    assert_complains(&second, &["in use by the steadfast process", "--data-dir"]);
    server.stop_now();
}

#[test]
fn a_hub_of_the_library_is_not_taken_for_a_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    printed(&run(&["hub", "create", "orders", "--data-dir", text(&data)]));
    let hub = data.join("hubs").join("orders");
    let served = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&hub)]);
    assert_complains(&served, &["is itself a task hub", "hubs/NAME"]);
}
