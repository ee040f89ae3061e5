//! What is said about assurance is true: dependencies, refusals in the manual, labels of the model, breaks, named tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use spa_gateway_core::Refusal;

use super::{code_spans, read, relative, root, sources};

/// `docs/dependencies.md` names what the manifests name, each with a reason; what it gives to tests alone is in no program.
#[test]
fn every_dependency_has_a_reason() {
    let mut named = BTreeSet::new();
    let mut linked = BTreeSet::new();
    for manifest in manifests() {
        let of_tests = relative(&manifest).starts_with("tests/");
        let table: toml_edit::DocumentMut = fs::read_to_string(&manifest)
            .expect("readable")
            .parse()
            .expect("TOML");
        // Those of one target stand in `[target.'cfg(…)'.dependencies]`.
        let targets = table.get("target").and_then(|item| item.as_table_like());
        let targets = targets.into_iter().flat_map(|all| all.iter());
        let places = targets
            .map(|(_, item)| item)
            .chain([table.as_item()])
            .filter_map(|item| item.as_table_like());
        let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
        let sections = places.flat_map(|place| kinds.map(|kind| (kind, place.get(kind))));
        for (kind, section) in sections {
            let Some(section) = section.and_then(|item| item.as_table_like()) else {
                continue;
            };
            let names = section.iter().map(|(name, _)| name.to_owned());
            let names: Vec<String> = names.filter(|name| !name.starts_with("spa-")).collect();
            if kind == "dependencies" && !of_tests {
                linked.extend(names.clone());
            }
            named.extend(names);
        }
    }
    let listed: BTreeMap<String, (String, usize)> = read("docs/dependencies.md")
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            let (users, reason) = rest.split_once(" | ")?;
            Some((name.to_owned(), (users.to_owned(), reason.len())))
        })
        .collect();
    assert_eq!(named, listed.keys().cloned().collect());
    for (name, (users, reason)) in &listed {
        assert!(*reason > 10, "{name}: a reason is a few words");
        assert!(
            !users.starts_with("tests") || !linked.contains(name),
            "{name} is not for {users} alone"
        );
    }
}

/// The manual says what each refusal is: it is what an administrator sees counted.
#[test]
fn every_refusal_is_in_the_manual() {
    let manual = read("docs/man/spa-gateway.8");
    let listed: Vec<&str> = manual
        .lines()
        .filter_map(|line| line.strip_prefix(".It Li "))
        .filter(|name| Refusal::ALL.iter().any(|refusal| refusal.name() == *name))
        .collect();
    let all: Vec<&str> = Refusal::ALL.iter().map(|refusal| refusal.name()).collect();
    assert_eq!(listed, all, "in the order of the checks");
}

/// The labels of the formal model are those of the wire, and each label of the code is in the model or named as left out.
#[test]
fn the_model_and_the_code_have_the_same_labels() {
    let readme = read("spa-proto/model/README.md");
    let model = read("spa-proto/model/gen.py");
    let mut table = BTreeSet::new();
    for line in readme.lines().filter(|line| line.starts_with("| `")) {
        let spans = code_spans(line);
        let label = spans.iter().find(|span| span.starts_with("KNOCK/1 "));
        let label = label.unwrap_or_else(|| panic!("no label in {line}"));
        for name in spans.iter().filter(|span| *span != label) {
            assert!(model.contains(name.as_str()), "gen.py has no {name}");
        }
        table.insert(label.clone());
    }
    let mut code = BTreeSet::new();
    for file in sources() {
        let name = relative(&file);
        if !name.starts_with("spa-proto/src/") || name.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("readable");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let labels = text.split('"').skip(1).step_by(2);
        code.extend(
            labels
                .filter(|label| label.starts_with("KNOCK/1 "))
                .map(str::to_owned),
        );
    }
    assert_eq!(table, code);
}

/// Each break is a promise, what catches it, and a patch.
#[test]
fn every_break_says_what_it_breaks() {
    let listed = read("docs/assurance.md");
    let mut breaks = 0;
    for entry in fs::read_dir(root().join("tests/breaks")).expect("there are breaks") {
        let path = entry.expect("readable").path();
        let patch = fs::read_to_string(&path).expect("readable");
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a name");
        let head: Vec<&str> = patch.lines().take(2).collect();
        assert!(head[0].starts_with("promise: "), "{name}");
        assert!(head[1].starts_with("caught by: "), "{name}");
        assert!(listed.contains(name), "docs/assurance.md has no {name}");
        breaks += 1;
    }
    assert!(breaks >= 10, "only {breaks}");
}

/// Each attacker of the threat model has a cell for each thing that is protected; "never" names what shows it.
#[test]
fn the_matrix_of_the_threat_model_is_whole() {
    let text = read("docs/threat-model.md");
    let section = |title: &str| -> Vec<Vec<String>> {
        let part = text.split("\n## ").find(|part| part.starts_with(title));
        let rows = part.expect("a section").lines();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
        let table = rows.filter(|line| line.starts_with('|')).skip(2);
        table.map(cells).collect()
    };
    let attackers = section("Who attacks");
    let matrix = section("Who may what");
    let names = |rows: &[Vec<String>]| -> Vec<String> {
        rows.iter().map(|cells| cells[1].clone()).collect()
    };
    assert_eq!(names(&attackers), names(&matrix));
    for cells in &matrix {
        assert_eq!(cells.len(), 1 + 7 + 1, "{}", cells[1]);
        for cell in &cells[2..8] {
            // A test of tests/e2e, a file, or a test by its name alone.
            let shows = |span: &String| {
                span.contains("::") || span.contains('/') || span.matches('_').count() > 2
            };
            let shown = code_spans(cell).iter().any(shows);
            assert!(
                cell.starts_with("may") || cell.starts_with("never"),
                "{}: {cell}",
                cells[1]
            );
            assert!(
                !cell.contains("never") || shown,
                "{}: nothing shows {cell:?}",
                cells[1]
            );
        }
    }
}

/// What a document names like a test (`a_sentence_of_words`) is a test, a vector or a break.
#[test]
fn documents_name_tests_that_exist() {
    let mut there = String::new();
    for file in sources() {
        there += &fs::read_to_string(file).expect("readable");
    }
    for vectors in ["negative.json", "replay.json", "reply.json"] {
        there += &read(&format!("tests/vectors/{vectors}"));
    }
    let mut named = 0;
    for document in [
        "docs/threat-model.md",
        "docs/past-bugs.md",
        "docs/assurance.md",
    ] {
        for span in code_spans(&read(document)) {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if span.matches('_').count() < 3 || !span.chars().all(word) {
                continue;
            }
            let is_break = root()
                .join("tests/breaks")
                .join(&span)
                .with_extension("patch")
                .exists();
            assert!(
                is_break
                    || there.contains(&format!("fn {span}("))
                    || there.contains(&format!("\"{span}\"")),
                "{document} names {span}"
            );
            named += 1;
        }
    }
    assert!(named >= 20, "only {named}");
}

fn manifests() -> Vec<std::path::PathBuf> {
    let workspace: toml_edit::DocumentMut = read("Cargo.toml").parse().expect("TOML");
    let members = workspace["workspace"]["members"]
        .as_array()
        .expect("members");
    members
        .iter()
        .map(|member| {
            root()
                .join(member.as_str().expect("a path"))
                .join("Cargo.toml")
        })
        .collect()
}
