//! The policies that were in force.

use super::*;

fn keep(store: &mut Store, text: &str) -> u64 {
    store
        .keep_policy(7, ("ana (uid 0)", "a reason"), text)
        .expect("kept")
}

fn serials(store: &Store) -> Vec<u64> {
    let versions = store.policy_versions().expect("read");
    versions.iter().map(|version| version.serial).collect()
}

#[test]
fn a_version_is_kept_once_with_who_when_why_and_its_lines() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    assert_eq!(store.newest_policy().expect("read"), None);
    assert_eq!(keep(&mut store, "a\nb\n"), 1);
    assert_eq!(keep(&mut store, "a\nb\n"), 1);
    assert_eq!(keep(&mut store, "b\nc\nd\n"), 2);
    drop(store);
    let store = Store::open(&place.paths).expect("open again");
    assert_eq!(store.freshness(), Freshness::Current);
    let versions = store.policy_versions().expect("read");
    let newest = versions.last().expect("two");
    assert_eq!((newest.serial, newest.at), (2, 7));
    assert_eq!((newest.added, newest.removed), (2, 1));
    assert_eq!(
        (newest.by.as_str(), newest.why.as_str()),
        ("ana (uid 0)", "a reason")
    );
    assert_eq!(
        store.policy_text(1).expect("read").as_deref(),
        Some("a\nb\n")
    );
    assert_eq!(store.policy_text(3).expect("read"), None);
}

#[test]
fn going_back_is_a_new_version() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    keep(&mut store, "one");
    keep(&mut store, "two");
    assert_eq!(keep(&mut store, "one"), 3);
}

#[test]
fn the_oldest_versions_leave_and_serials_go_on() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    for at in 0..MAX_VERSIONS + 5 {
        keep(&mut store, &format!("# {at}"));
    }
    let kept = serials(&store);
    assert_eq!(kept.len(), MAX_VERSIONS);
    assert_eq!(kept.last().copied(), Some(105));
    let large = "#".repeat(12 * 1024 * 1024);
    keep(&mut store, &format!("{large}1"));
    keep(&mut store, &format!("{large}2"));
    assert_eq!(
        serials(&store),
        [106, 107],
        "there is always one to go back to"
    );
}

#[test]
fn a_full_disk_keeps_no_half_version() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    keep(&mut store, "one");
    store.fill_the_disk();
    let large = "#".repeat(1024 * 1024);
    assert!(store.keep_policy(8, ("bo", ""), &large).is_err());
    assert_eq!(serials(&store), [1]);
    assert_eq!(keep(&mut store, "two"), 2, "no serial is lost");
}
