//! Programs that an example is written for.

use std::fs;
use std::process::Command;

use super::TOOLS;
use super::guide::Example;

/// Runs `example` with its language's own program and returns what it printed. A program that can't be had is a failure
/// like any other: an example that was not run proves nothing.
pub fn run(example: &Example) -> String {
    let (program, extension) = match example.language.as_str() {
        "sh" => ("sh", "sh"),
        "php" => ("php", "php"),
        "ruby" => ("ruby", "rb"),
        other => panic!("{}: nothing runs {other:?}", example.name),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join(format!("{}.{extension}", example.name));
    fs::write(&script, &example.code).expect("written");
    let mut command = Command::new(program);
    command.arg(&script).current_dir(folder.path());
    // They talk to this machine alone.
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; {TOOLS}"));
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}: {}\n{out}{err}\n{TOOLS}", example.name, output.status);
    out
}
