//! Where settings come from, and which are refused.

use std::path::Path;
use std::process::Command;

use crate::support::{Server, assert_complains, printed, run, steadfast, text};

fn check(file: &Path, arguments: &[&str]) -> Command {
    let mut command = steadfast(&["config", "check", "--config", text(file)]);
    command.args(arguments);
    command
}

fn file_of(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

/// The value of a setting and where it comes from, as they are printed.
fn setting<'a>(printed: &'a str, name: &str) -> (&'a str, &'a str) {
    let line = printed.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
    let (value, source) = line.split_once('#').unwrap();
    (value.split_once('=').unwrap().1.trim(), source.trim())
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let file = file_of("hubs-max = 1\npartitions = 1\ndefault-hub = 'filed'\ncreate-hubs = true\n");
    let output = check(file.path(), &["--hubs-max", "3", "--create-hubs=false"])
        .env("STEADFAST_HUBS_MAX", "2")
        .env("STEADFAST_PARTITIONS", "2")
        .output()
        .unwrap();
    let printed = printed(&output);
    assert_eq!(setting(&printed, "hubs-max"), ("3", "flag"));
    assert_eq!(setting(&printed, "create-hubs"), ("false", "flag"));
    assert_eq!(setting(&printed, "partitions"), ("2", "environment"));
    assert_eq!(setting(&printed, "default-hub"), ("\"filed\"", "file"));
    assert_eq!(setting(&printed, "listen"), ("[\"localhost:4001\"]", "default"));
}

#[test]
fn all_settings_can_stand_in_all_three_places_and_what_is_printed_is_a_file_again() {
    let file = file_of(
        "data-dir = 'd'\ndefault-hub = 'h'\ncreate-hubs = true\nhubs-max = 5\npartitions = 6\n\
         listen = ['127.0.0.1:1', '[::1]:2']\nallow-unauthenticated = true\nreflection = false\n\
         connections-max = 7\ncalls-per-connection-max = 8\ncalls-max = 9\nworker-streams-max = 10\n\
         message-size-max = '2MiB'\npayload-size-max = '1KiB'\ngreeting-timeout = '250ms'\n\
         receiving-size-max = '3MiB'\nmessage-timeout = '1s'\n\
         keepalive-interval = '2m'\ndrain-timeout = '0s'\nworker-extension = false\n\
         worker-default-places = 11\nworker-orchestration-lease = '3s'\nworker-entity-lease = '4s'\n\
         worker-activity-lease = '5s'\nworker-disconnect-grace = '0s'\nworker-abandon-delay = '6ms'\n\
         worker-abandon-delay-max = '6ms'\nlog = 'debug'\nlog-format = 'json'\n",
    );
    let by_file = printed(&check(file.path(), &[]).output().unwrap());
    assert!(by_file.lines().all(|line| line.ends_with("# file")), "{by_file}");
    let again = printed(&check(file_of(&by_file).path(), &[]).output().unwrap());
    assert_eq!(again, by_file);

    let mut with_environment = steadfast(&["config", "check"]);
    let mut with_flags = steadfast(&["config", "check"]);
    for line in by_file.lines() {
        let (name, value) = line.split('#').next().unwrap().split_once(" = ").unwrap();
        let value = value.trim().replace(['"', '[', ']', ' '], "").replace("::1:2", "[::1]:2");
        with_environment.env(format!("STEADFAST_{}", name.to_uppercase().replace('-', "_")), &value);
        with_flags.arg(format!("--{name}={value}"));
    }
    let by_environment = printed(&with_environment.output().unwrap());
    assert_eq!(by_environment.replace("# environment", "# file"), by_file);
    let by_flags = printed(&with_flags.output().unwrap());
    assert_eq!(by_flags.replace("# flag", "# file"), by_file);
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_what_to_change() {
    for (content, words) in [
        ("hubs-maximum = 1", &["hubs-maximum", "unknown"][..]),
        ("hubs-max = 'many'", &["hubs-max"]),
        ("drain-timeout = '10'", &["such as 30s"]),
        ("message-size-max = '64MB'", &["such as 64MiB"]),
        ("listen = []", &["localhost:4001"]),
        ("listen = ['localhost']", &["cannot listen on 'localhost'"]),
        ("default-hub = '../x'", &["default-hub", "letter or a digit"]),
        ("hubs-max = 0", &["hubs-max is 0", "at least 1"]),
        ("keepalive-interval = '0s'", &["keepalive-interval is 0"]),
        ("message-size-max = '1GiB'", &["receiving-size-max is less than message-size-max"]),
        ("worker-default-places = 0", &["worker-default-places is 0", "at least 1"]),
        ("worker-activity-lease = '0s'", &["worker-activity-lease is 0"]),
        ("worker-abandon-delay = '2m'", &["worker-abandon-delay-max is less than worker-abandon-delay"]),
        ("tls-cert = 'a.pem'", &["tls-key is missing"]),
        ("tls-key = 'a.pem'", &["tls-cert is missing"]),
        ("tls-client-ca = 'a.pem'", &["tls-cert is missing", "tls-client-ca"]),
        ("tls-cert = '/no.pem'\ntls-key = '/no.key'", &["certificate", "/no.pem"]),
        ("token-file = '/no'", &["/no", "cannot be read"]),
        ("log = 'steadfast=loud'", &["'warn,steadfast=debug'"]),
        ("log-format = 'xml'", &["xml", "json"]),
        ("hubs-max = ", &["settings file"]),
    ] {
        let output = check(file_of(content).path(), &[]).output().unwrap();
        assert_complains(&output, words);
    }
    assert_complains(&run(&["serve", "--config", "/no/such"]), &["/no/such", "cannot be read"]);
}

#[test]
fn help_teaches() {
    let help = printed(&run(&["serve", "--help"]));
    for word in ["STEADFAST_LISTEN", "[default: localhost:4001]", "Examples:", "SIGTERM", "token new"] {
        assert!(help.contains(word), "{word}");
    }
    let help = printed(&run(&["token", "new", "--help"]));
    assert!(help.contains("Roles:"), "{help}");
    let version = printed(&run(&["serve", "--version"]));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn the_example_of_a_deployment_can_be_used_where_its_files_are() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/deploy/steadfast.toml");
    // Everything is understood; what lacks are the certificates of that machine.
    assert_complains(&check(&example, &[]).output().unwrap(), &["/etc/steadfast/server.pem"]);
}

#[test]
fn the_log_is_for_programs_if_that_is_asked_for() {
    let (log, _) = Server::start(&["--log-format", "json"]).stop_now();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "stopped"), "{log}");
    assert!(lines.iter().all(|line| line["target"] == "steadfast::server"), "{log}");
    let (log, _) = Server::start(&["--log", "off"]).stop_now();
    assert_eq!(log, "");
}
