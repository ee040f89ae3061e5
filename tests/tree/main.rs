//! What the tree says about itself is true: documents name files and tests that exist, and `unsafe` stays in its places.
#![forbid(unsafe_code)]

mod assurance;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are not ours to judge, wherever they are.
const FOREIGN: [&str; 2] = ["target", ".git"];
/// A workspace of its own.
const FUZZ: &str = "fuzz";
/// Where `unsafe` may stand: netlink and libnftnl, the TUN device, the capture socket (docs/STYLE.md), and `adjtimex`, which no
/// safe crate offers.
const UNSAFE: [&str; 4] = [
    "spa-gateway/enforcer/",
    "spa-gateway/wireguard/",
    "spa-gateway/src/capture",
    "spa-gateway/src/clock/synchronised.rs",
];
/// Documents whose words between backticks are checked.
const DOCUMENTS: [&str; 7] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/flow.md",
    "docs/threat-model.md",
    "docs/past-bugs.md",
    "docs/assurance.md",
    "docs/dependencies.md",
];

/// Every path that flow.md names is there, and it names more than a few.
#[test]
fn the_flow_names_files_that_exist() {
    let root = root();
    let named: Vec<String> = code_spans(&read("docs/flow.md"))
        .into_iter()
        .filter(|span| is_path(span))
        .collect();
    assert!(
        named.len() >= 20,
        "only {} paths in docs/flow.md",
        named.len()
    );
    for path in named {
        assert!(root.join(&path).exists(), "docs/flow.md names {path}");
    }
}

/// Every link of a document leads to a file, and every path it names is there.
#[test]
fn documents_lead_to_files_that_exist() {
    for document in DOCUMENTS {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_path_buf();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if !link.contains("://") {
                assert!(folder.join(link).exists(), "{document} links to {link}");
            }
        }
        for path in code_spans(&text).into_iter().filter(|span| is_path(span)) {
            assert!(root().join(&path).exists(), "{document} names {path}");
        }
    }
}

/// Every end-to-end test that a document leans on (`module::name`) exists.
#[test]
fn documents_lean_on_tests_that_exist() {
    let mut found = 0;
    for document in DOCUMENTS {
        for span in code_spans(&read(document)) {
            let Some((module, name)) = span.split_once("::") else {
                continue;
            };
            // Other paths of Rust have a shorter end, or more of it.
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if name.matches('_').count() < 2 || !name.chars().all(word) {
                continue;
            }
            let text = read(&format!("tests/e2e/{module}.rs"));
            assert!(
                text.contains(&format!("#[test]\nfn {name}()")),
                "{document} leans on {span}"
            );
            found += 1;
        }
    }
    assert!(found >= 20, "only {found} tests are named in the documents");
}

/// `unsafe` stands in its few places only, and each says why it is sound.
#[test]
fn unsafe_stays_in_its_places() {
    for file in sources() {
        let name = relative(&file);
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let uses = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|word| code.contains(word));
            // This file names the words it looks for.
            if !uses || name == "tests/tree/main.rs" {
                continue;
            }
            assert!(
                UNSAFE.iter().any(|place| name.starts_with(place)),
                "{name}:{} has unsafe code",
                number + 1
            );
            let above = &lines[number.saturating_sub(8)..=number];
            assert!(
                above
                    .iter()
                    .any(|line| line.contains("SAFETY:") || line.contains("# Safety")),
                "{name}:{} does not say why it is sound",
                number + 1
            );
        }
    }
}

/// The wire and the core can name neither a clock nor a socket: they are `no_std`, without unsafe code.
#[test]
fn the_pure_crates_are_pure() {
    for file in [
        "spa-proto/src/lib.rs",
        "spa-gateway/core/src/lib.rs",
        "spa-gateway/order/src/lib.rs",
    ] {
        let text = read(file);
        assert!(text.contains("no_std"), "{file}");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

/// Where a test can stop a program, it is a test's program: a release has no such point, and its profile stays without assertions.
#[test]
fn a_release_cannot_be_stopped_from_outside() {
    let points = read("spa-gateway/failpoint/src/lib.rs");
    let code = points.matches("\npub fn ").count();
    let variables = ["SPA_PAUSE_AT", "SPA_CLOCK_SHIFT"];
    assert_eq!(
        points.matches("#[cfg(debug_assertions)]\npub fn ").count(),
        code
    );
    assert_eq!(
        points.matches("#[cfg(debug_assertions)]\nconst ").count(),
        variables.len()
    );
    let empty = "#[cfg(not(debug_assertions))]\n#[inline(always)]\npub const fn ";
    assert_eq!(points.matches(empty).count(), code);
    // Nothing stands outside of these.
    assert_eq!(points.matches("fn ").count(), 2 * code);
    for file in sources() {
        let name = relative(&file);
        if name.starts_with("spa-") && name != "spa-gateway/failpoint/src/lib.rs" {
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                !variables.iter().any(|variable| text.contains(variable)),
                "{name}"
            );
        }
    }
    for manifest in ["Cargo.toml", ".cargo/config.toml"] {
        let text = fs::read_to_string(root().join(manifest)).unwrap_or_default();
        // What is never released may have them: the simulator does.
        let released = text
            .split("\n[")
            .filter(|part| !part.starts_with("profile.sim]"));
        for part in released {
            assert!(!part.contains("debug-assertions"), "{manifest}: {part}");
        }
    }
    // `make install` looks into the programs themselves.
    let looks = read("tests/tools/need-release.sh");
    assert!(variables.iter().all(|variable| looks.contains(variable)));
}

/// Every program a person runs has its manual page.
#[test]
fn every_program_has_its_page() {
    for (page, program) in [
        ("docs/man/spa.1", "spa"),
        ("docs/man/spa-admin.8", "spa-admin"),
        ("docs/man/spa-gateway.8", "spa-gateway"),
    ] {
        assert!(read(page).contains(&format!(".Nm {program}")), "{page}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the tree")
        .to_path_buf()
}

fn read(path: &str) -> String {
    let file = root().join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .expect("below the root")
        .to_string_lossy()
        .into_owned()
}

/// What stands between backticks, code blocks left out.
fn code_spans(text: &str) -> BTreeSet<String> {
    let prose: Vec<&str> = text.split("```").step_by(2).collect();
    prose
        .iter()
        .flat_map(|part| part.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// A path of the tree: it has a slash inside and nothing that a path of ours does not have.
fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    span.contains('/')
        && !span.starts_with('/')
        && span.chars().all(plain)
        && root()
            .join(span.split('/').next().expect("split gives one"))
            .is_dir()
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let foreign = FOREIGN.iter().any(|name| path.ends_with(name));
            if path.is_dir() && !foreign && path != root().join(FUZZ) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
