//! Compiles `wire/` to Rust with a pure-Rust protobuf compiler, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=wire");
    let files = [
        "identity",
        "room",
        "relay",
        "gateway",
        "directory",
        "tunnel",
    ]
    .map(|name| format!("wire/sotto/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["wire"])?;
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
