//! Compiles the files in `proto/`, and those of our own extension, to Rust, without a protoc on the machine.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=extension");
    let extension = protox::compile(["extension/worker.proto", "extension/calls.proto"], ["extension"])?;
    // Contents are decoded from where they were received.
    tonic_prost_build::configure().bytes(".steadfast.calls").compile_fds(extension)?;
    let mut files = Vec::new();
    for entry in fs::read_dir("proto")? {
        files.push(entry?.path());
    }
    files.sort();
    let mut descriptors = protox::compile(&files, [Path::new("proto")])?;
    tonic_prost_build::configure().compile_fds(descriptors.clone())?;
    // For servers that describe themselves to their clients; comments are not needed there.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), descriptors.encode_to_vec())?;
    Ok(())
}
