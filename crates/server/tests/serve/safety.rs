//! Who is let in: addresses, TLS, client certificates.

use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;

use rustix::process::Signal;
use steadfast_remote::{Client, ConnectError, TlsOptions};
use tonic::transport::{Channel, ClientTlsConfig};

use crate::authority::Authority;
use crate::support::{Server, assert_complains, client, printed, run, soon, text};

#[test]
fn other_machines_are_served_only_with_authentication_or_when_that_is_said() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (certificate, key) = authority.write_server(folder.path());
    let tls = ["--tls-cert", text(&certificate), "--tls-key", text(&key)];
    let check = |address: &str, arguments: &[&str]| {
        run(&[&["config", "check", "--listen", address], arguments].concat())
    };
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:4001", "[::ffff:192.0.2.1]:0", "localhost:0,0.0.0.0:0"]
    {
        assert_complains(&check(address, &[]), &["nobody would have to say who they are", "--token-file"]);
        // Encryption alone says nothing about the caller.
        assert_complains(&check(address, &tls), &["nobody would have to say who they are"]);
        printed(&check(address, &["--allow-unauthenticated"]));
    }
    for address in ["127.0.0.1:0", "127.8.8.8:0", "[::1]:0", "localhost:4001", "[::ffff:127.0.0.1]:0"] {
        printed(&check(address, &[]));
    }
    let serve = run(&["serve", "--data-dir", text(&folder.path().join("data")), "--listen", "0.0.0.0:0"]);
    assert_complains(&serve, &["nobody would have to say who they are"]);

    let tokens = folder.path().join("tokens");
    let line = printed(&run(&["token", "new", "--name", "ci", "--grant", "read"]));
    std::fs::write(&tokens, line.lines().nth(1).unwrap()).unwrap();
    printed(&check("0.0.0.0:0", &["--token-file", text(&tokens)]));
    let ca = authority.write(folder.path());
    printed(&check("0.0.0.0:0", &[&tls[..], &["--tls-client-ca", text(&ca)]].concat()));
}

#[tokio::test]
async fn localhost_is_both_loopback_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = crate::support::steadfast(&["serve", "--listen", "localhost:0", "--data-dir"]);
    command.arg(folder.path().join("data"));
    let mut server = Server::spawn(folder, command);
    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    assert_eq!(server.addresses.len(), if has_ipv6 { 2 } else { 1 }, "{}", server.ready);
    let port = server.addresses[0].port();
    while let Some(address) = server.addresses.first().copied() {
        assert!(address.ip().is_loopback());
        assert_eq!(address.port(), port);
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let mut client = client(soon(channel.connect()).await.unwrap(), "", "");
        soon(client.hello(())).await.unwrap();
        server.addresses.remove(0);
    }
    server.stop().await;
}

/// Whether a client with these keys gets an answer.
async fn is_answered(server: &Server, tls: ClientTlsConfig) -> bool {
    let endpoint = server.endpoint("https").tls_config(tls).unwrap();
    let mut client = client(endpoint.connect_lazy(), "", "");
    soon(client.hello(())).await.is_ok()
}

#[tokio::test]
async fn with_a_certificate_only_tls_is_spoken() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (certificate, key) = authority.write_server(folder.path());
    let server = Server::start_in(folder, &["--tls-cert", text(&certificate), "--tls-key", text(&key)]);
    assert!(server.ready.contains("tls=on"), "{}", server.ready);
    assert!(is_answered(&server, authority.trusting()).await);
    assert!(!is_answered(&server, Authority::new().trusting()).await, "another authority");
    let mut plain = client(server.endpoint("http").connect_lazy(), "", "");
    soon(plain.hello(())).await.unwrap_err();
    server.stop().await;
}

#[tokio::test]
async fn clients_without_a_certificate_of_the_authority_cannot_connect() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (certificate, key) = authority.write_server(folder.path());
    let ca = authority.write(folder.path());
    let arguments = ["--tls-cert", text(&certificate), "--tls-key", text(&key), "--tls-client-ca", text(&ca)];
    let server = Server::start_in(folder, &arguments);
    assert!(server.ready.contains("tls=mutual"), "{}", server.ready);
    assert!(is_answered(&server, authority.trusting().identity(authority.identity())).await);
    assert!(!is_answered(&server, authority.trusting()).await);
    assert!(!is_answered(&server, authority.trusting().identity(Authority::new().identity())).await);
    server.stop().await;
}

#[tokio::test]
async fn certificates_are_read_again_without_a_restart() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let (certificate, key) = old.write_server(folder.path());
    let path = folder.path().to_owned();
    let server = Server::start_in(folder, &["--tls-cert", text(&certificate), "--tls-key", text(&key)]);
    let kept = server.endpoint("https").tls_config(old.trusting()).unwrap();
    let mut kept = client(soon(kept.connect()).await.unwrap(), "", "");

    // What cannot be used changes nothing.
    std::fs::write(&certificate, "nothing").unwrap();
    server.signal(Signal::HUP);
    assert!(is_answered(&server, old.trusting()).await);

    new.write_server(&path);
    server.signal(Signal::HUP);
    soon(async { while !is_answered(&server, new.trusting()).await {} }).await;
    soon(kept.hello(())).await.unwrap();
    let (log, _) = server.stop().await;
    assert!(log.contains("certificates read again"), "{log}");
}

#[tokio::test]
async fn rust_clients_know_the_server_by_its_certificate_and_show_their_own() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let ((certificate, key), ca) = (authority.write_server(folder.path()), authority.write(folder.path()));
    let arguments = ["--tls-cert", text(&certificate), "--tls-key", text(&key), "--tls-client-ca", text(&ca)];
    let server = Server::start_in(folder, &arguments);
    let url = format!("https://localhost:{}", server.addresses[0].port());
    let connect = async |tls: TlsOptions| {
        let there = steadfast_remote::Server::at(&url).tls(tls).patience(Duration::ZERO);
        soon(Client::connect(there)).await
    };
    let other = Authority::new();
    assert!(connect(authority.trusting_client(Some(&authority))).await.is_ok());
    for refused in [
        authority.trusting_client(None),
        authority.trusting_client(Some(&other)),
        other.trusting_client(Some(&authority)),
        TlsOptions {
            server_name: Some("elsewhere".to_owned()),
            ..authority.trusting_client(Some(&authority))
        },
    ] {
        assert!(matches!(connect(refused).await, Err(ConnectError::Client(_))));
    }
    let unusable = TlsOptions { authority: "no certificate".to_owned(), ..TlsOptions::default() };
    assert!(matches!(connect(unusable).await, Err(ConnectError::Tls { .. })));
    assert!(matches!(soon(Client::connect(url.as_str())).await, Err(ConnectError::Tls { .. })));
    server.stop().await;
}
