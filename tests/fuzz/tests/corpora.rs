//! Replays the committed corpora, and what a target once found, on a stable compiler; and sees that none is forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use spa_fuzz_targets::TARGETS;

/// The most bytes of one corpus.
const MAX_CORPUS: u64 = 1 << 20;

fn fuzz(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz")
        .join(folder)
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz(folder)).expect("the folder is there");
    let stem = |entry: fs::DirEntry| entry.path().file_stem()?.to_str().map(str::to_owned);
    entries
        .filter_map(|entry| stem(entry.expect("readable")))
        .collect()
}

#[test]
fn every_corpus_passes() {
    for (name, run) in TARGETS {
        let mut bytes = 0;
        for entry in fs::read_dir(fuzz("corpus").join(name)).expect("a corpus") {
            let input = fs::read(entry.expect("readable").path()).expect("readable");
            bytes += input.len() as u64;
            run(&input);
        }
        assert!(bytes > 0 && bytes < MAX_CORPUS, "{name}: {bytes} bytes");
    }
}

#[test]
fn every_target_has_a_corpus_and_a_fuzzer() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets, names("corpus"));
    assert_eq!(targets, names("fuzz_targets"));
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).expect("readable");
    for name in &targets {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is not built"
        );
    }
}
