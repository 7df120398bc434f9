//! Rules of the repository that are checked instead of remembered: who may depend on whom, what the kernel must not
//! touch, how long a file may be. They are described in ARCHITECTURE.md and CONTRIBUTING.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every package of the workspace, and the packages of the workspace it may depend on. Dev-dependencies are free.
const ARROWS: &[(&str, &[&str])] = &[
    ("steadfast-core", &[]),
    ("steadfast-macros", &[]),
    ("steadfast-store", &["steadfast-core"]),
    ("steadfast-store-sled", &["steadfast-core", "steadfast-store"]),
    ("steadfast-engine", &["steadfast-core", "steadfast-store"]),
    (
        "steadfast-server",
        &[
            "steadfast-core",
            "steadfast-store",
            "steadfast-store-sled",
            "steadfast-engine",
            "steadfast-grpc",
            "steadfast-remote",
        ],
    ),
    ("steadfast-grpc", &["steadfast-core", "steadfast-engine"]),
    ("steadfast-remote", &["steadfast-core", "steadfast-engine", "steadfast-grpc"]),
    ("steadfast-testkit", &["steadfast-core", "steadfast-store", "steadfast-engine"]),
    (
        "steadfast",
        &[
            "steadfast-core",
            "steadfast-store",
            "steadfast-store-sled",
            "steadfast-engine",
            "steadfast-macros",
            "steadfast-remote",
        ],
    ),
];

/// Packages from outside that only these packages of the workspace may depend on.
const RESERVED: &[(&str, &[&str])] = &[
    ("actix", &["steadfast-engine"]),
    ("sled", &["steadfast-store-sled"]),
    ("bincode", &["steadfast-core"]),
    (
        "tokio",
        &["steadfast-engine", "steadfast-grpc", "steadfast-remote", "steadfast-server", "steadfast-testkit"],
    ),
    ("tokio-rustls", &["steadfast-grpc", "steadfast-remote"]),
    ("tonic", &["steadfast-grpc", "steadfast-remote"]),
    ("prost", &["steadfast-grpc"]),
    ("clap", &["steadfast-server"]),
];

/// What the kernel's sources must not mention: it is synchronous and deterministic, and does no IO.
const BANNED_IN_CORE: &[&str] = &["std::fs", "std::net", "std::thread", "SystemTime", "Instant::now"];

/// A longer file has more than one thing in it.
const FILE_LINES_MAX: usize = 600;

/// The workspace as cargo sees it.
struct Workspace {
    root: PathBuf,
    packages: Vec<Value>,
}

impl Workspace {
    fn load() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        let packages = metadata["packages"].as_array().expect("there are packages").clone();
        assert!(packages.len() > 1, "cargo metadata shows the workspace");
        Self { root: env!("CARGO_MANIFEST_DIR").into(), packages }
    }

    /// Every package with its dependencies, without those for tests.
    fn dependencies(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        self.packages
            .iter()
            .map(|package| {
                let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
                let needed = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
                (name(package), needed.map(name).collect())
            })
            .collect()
    }

    /// All files below the root that are ours, by extension.
    fn files(&self, extensions: &[&str]) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for folder in ["crates", "src", "tests", "examples", "benches"] {
            collect(&self.root.join(folder), extensions, &mut files);
        }
        assert!(files.len() > 10, "the files are found");
        files.sort();
        files
    }

    fn relative<'a>(&self, file: &'a Path) -> &'a Path {
        file.strip_prefix(&self.root).expect("it is below the root")
    }
}

fn name(value: &Value) -> &str {
    value["name"].as_str().expect("it has a name")
}

fn collect(folder: &Path, extensions: &[&str], into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, extensions, into);
            }
        } else if path.extension().and_then(|it| it.to_str()).is_some_and(|it| extensions.contains(&it)) {
            into.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with all problems at once.
fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn dependencies_between_our_crates_point_the_agreed_way() {
    let workspace = Workspace::load();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut problems = Vec::new();
    for (package, dependencies) in workspace.dependencies() {
        let Some(allowed) = allowed.get(package) else {
            problems.push(format!("{package} is not in ARROWS: decide what it may depend on"));
            continue;
        };
        for ours in dependencies.iter().filter(|dependency| dependency.starts_with("steadfast")) {
            if !allowed.contains(ours) {
                problems.push(format!("{package} must not depend on {ours}"));
            }
        }
    }
    none(problems);
}

#[test]
fn packages_from_outside_stay_behind_the_crate_that_wraps_them() {
    let workspace = Workspace::load();
    let mut problems = Vec::new();
    for (package, dependencies) in workspace.dependencies() {
        for (reserved, owners) in RESERVED {
            if dependencies.contains(reserved) && !owners.contains(&package) {
                problems.push(format!("{package} must not depend on {reserved}: {owners:?} may"));
            }
        }
    }
    none(problems);
}

#[test]
fn the_kernel_does_no_io_and_reads_no_clock() {
    let workspace = Workspace::load();
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    collect(&workspace.root.join("crates/core/src"), &["rs"], &mut sources);
    assert!(!sources.is_empty(), "the kernel is found");
    for file in sources {
        for (number, line) in read(&file).lines().enumerate() {
            for banned in BANNED_IN_CORE.iter().filter(|banned| line.contains(*banned)) {
                let place = workspace.relative(&file).display();
                problems.push(format!("{place}:{}: the kernel must not use {banned}", number + 1));
            }
        }
    }
    none(problems);
}

#[test]
fn every_member_inherits_the_workspace_lints() {
    let workspace = Workspace::load();
    let mut problems = Vec::new();
    for package in &workspace.packages {
        let manifest = read(Path::new(package["manifest_path"].as_str().expect("a path")));
        let mut lines = manifest.lines().map(str::trim);
        let inherits = lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true");
        if !inherits {
            problems.push(format!("{} lacks `[lints] workspace = true`", name(package)));
        }
    }
    none(problems);
}

#[test]
fn every_crate_says_what_it_is() {
    let workspace = Workspace::load();
    let mut problems = Vec::new();
    for package in &workspace.packages {
        for target in package["targets"].as_array().expect("a list of targets") {
            let path = Path::new(target["src_path"].as_str().expect("a path"));
            let text = read(path);
            let mut lines = text.lines().filter(|line| !line.starts_with("#!["));
            if !lines.next().is_some_and(|line| line.starts_with("//!")) {
                problems.push(format!("{} must begin with `//!`", workspace.relative(path).display()));
            }
        }
    }
    none(problems);
}

#[test]
fn no_source_file_is_too_long() {
    let workspace = Workspace::load();
    let mut problems = Vec::new();
    for file in workspace.files(&["rs"]) {
        let place = workspace.relative(&file);
        let is_test =
            place.components().any(|part| part.as_os_str() == "tests") || place.ends_with("tests.rs");
        let lines = read(&file).lines().count();
        if !is_test && lines > FILE_LINES_MAX {
            problems.push(format!("{} has {lines} lines; split it at {FILE_LINES_MAX}", place.display()));
        }
    }
    none(problems);
}

#[test]
fn open_points_give_a_reason() {
    let workspace = Workspace::load();
    // Written in two parts, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut problems = Vec::new();
    for file in workspace.files(&["rs", "toml", "md"]) {
        for (number, line) in read(&file).lines().enumerate() {
            for mark in marks {
                let Some((_, after)) = line.split_once(mark) else { continue };
                let reason = after.strip_prefix('(').and_then(|rest| rest.split_once("):"));
                if !reason.is_some_and(|(why, what)| !why.trim().is_empty() && !what.trim().is_empty()) {
                    let place = workspace.relative(&file).display();
                    problems
                        .push(format!("{place}:{}: write `{mark}(why it is not done): what`", number + 1));
                }
            }
        }
    }
    none(problems);
}

#[test]
fn text_files_are_clean() {
    let workspace = Workspace::load();
    let mut problems = Vec::new();
    for file in workspace.files(&["rs", "toml", "md"]) {
        let (place, text) = (workspace.relative(&file).display(), read(&file));
        if text.contains('\t') || text.contains('\r') {
            problems.push(format!("{place}: has a tab or a carriage return"));
        }
        for (number, line) in text.lines().enumerate() {
            if line.ends_with(' ') {
                problems.push(format!("{place}:{}: ends with a space", number + 1));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            problems.push(format!("{place}: does not end with a line feed"));
        }
    }
    none(problems);
}
