//! Which file of a vector folder is checked by what. Wire kinds by `spa-proto`, `negative` and
//! `replay` by `spa-gateway-core`.

mod case;
mod invite;
mod kdf;
mod knock;
mod negative;
mod rekey;
mod replay;
mod reply;
mod state;
mod tag;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use case::Report;

/// Checks every `*.json` of a folder. What cannot be read counts as one failure.
pub fn check_folder(folder: &Path) -> Report {
    let mut report = Report::default();
    match json_files(folder) {
        Ok(files) if files.is_empty() => report.broken(folder, "holds no .json file"),
        Ok(files) => files.iter().for_each(|file| check_file(file, &mut report)),
        Err(error) => report.broken(folder, &error.to_string()),
    }
    report
}

fn json_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn check_file(path: &Path, report: &mut Report) {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => return report.broken(path, &error.to_string()),
    };
    let file: Value = match serde_json::from_slice(&text) {
        Ok(file) => file,
        Err(error) => return report.broken(path, &error.to_string()),
    };
    if file["spec"] != "KNOCK/1" {
        return report.broken(path, "is not for the spec KNOCK/1");
    }
    let (Some(kind), vectors) = (file["kind"].as_str(), &file["vectors"]) else {
        return report.broken(path, "names no kind");
    };
    let before = report.passed + report.failed;
    match kind {
        "invite" => invite::check(vectors, report),
        "kdf" => kdf::check(vectors, report),
        "knock" => knock::check(vectors, report),
        "negative" => negative::check(vectors, report),
        "rekey" => rekey::check(vectors, report),
        "replay" => replay::check(vectors, report),
        "reply" => reply::check(vectors, report),
        "tag" => tag::check(vectors, report),
        other => return report.broken(path, &format!("is of the unknown kind {other:?}")),
    }
    if report.passed + report.failed == before {
        report.broken(path, "holds no vectors");
    }
}
