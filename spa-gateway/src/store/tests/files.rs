//! What is on the disk, and what becomes of it when it is full, old, or somebody else's.

use super::*;

#[test]
fn no_secret_is_in_the_files() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    commit(
        &mut store,
        vec![person("ana"), invite(), candidate(1), session()],
    );
    let mut bytes = Vec::new();
    for file in ["store.db", "store.db-wal", "generation"] {
        bytes.extend(std::fs::read(place.paths.state.join(file)).expect("read"));
    }
    assert!(
        bytes.windows(6).any(|part| part == b"laptop"),
        "the files are the right ones"
    );
    for secret in SECRETS {
        assert!(
            !bytes.windows(16).any(|part| part == &secret[..16]),
            "{secret:x?}"
        );
    }
}

#[test]
fn erased_keys_leave_the_files() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    commit(&mut store, vec![person("ana"), invite()]);
    let sealed: Vec<u8> = store
        .db
        .query_row("SELECT key FROM credential_key", [], |row| row.get(0))
        .expect("a key");
    commit(
        &mut store,
        vec![Change::PersonErased {
            person: name("ana"),
        }],
    );
    drop(store);
    let bytes = std::fs::read(place.paths.store()).expect("read");
    assert!(!bytes.windows(sealed.len()).any(|part| part == sealed));
}

#[test]
fn a_store_of_another_key_does_not_open() {
    let place = place();
    std::fs::write(place.paths.seal_key(), [1; 32]).expect("written");
    let refusal = Store::open(&place.paths).expect_err("refused").to_string();
    assert!(
        refusal.contains("K_seal") && !refusal.contains('\n'),
        "{refusal}"
    );
}

#[test]
fn files_open_to_others_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    for file in ["K_seal", "store.db"] {
        let place = place();
        let file = place.paths.state.join(file);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        let refusal = Store::open(&place.paths).expect_err("refused").to_string();
        assert!(
            refusal.contains("mode 0644") && refusal.contains("chmod 600"),
            "{refusal}"
        );
    }
}

#[test]
fn a_second_gateway_is_turned_away() {
    let place = place();
    let mut first = Store::open(&place.paths).expect("open");
    commit(&mut first, vec![]);
    let refusal = Store::open(&place.paths).expect_err("in use").to_string();
    assert!(refusal.contains("open in another process"), "{refusal}");
}

#[test]
fn a_restored_store_is_noticed_until_it_is_accepted() {
    let place = place();
    let backup = std::fs::read(place.paths.store()).expect("a copy");
    let mut store = Store::open(&place.paths).expect("open");
    commit(&mut store, vec![person("ana")]);
    drop(store);
    assert_eq!(
        Store::open(&place.paths).expect("open").freshness(),
        Freshness::Current
    );
    std::fs::write(place.paths.store(), &backup).expect("restored");
    let mut store = Store::open(&place.paths).expect("open");
    assert_eq!(store.freshness(), Freshness::Restored);
    store.accept_restored().expect("accepted");
    drop(store);
    assert_eq!(
        Store::open(&place.paths).expect("open").freshness(),
        Freshness::Current
    );
}

#[test]
fn a_store_without_its_generation_counts_as_restored() {
    let place = place();
    std::fs::remove_file(place.paths.generation()).expect("removed");
    let store = Store::open(&place.paths).expect("open");
    assert_eq!(store.freshness(), Freshness::Restored);
}

#[test]
fn nothing_is_made_over_what_is_there() {
    let place = place();
    let founding = Founding {
        identity: KnockSecret::from_bytes([1; 32]),
        wireguard: Zeroizing::new([1; 32]),
        made: at(1),
    };
    let before = std::fs::read(place.paths.seal_key()).expect("read");
    assert!(Store::create(&place.paths, &founding).is_err());
    assert_eq!(std::fs::read(place.paths.seal_key()).expect("read"), before);

    std::fs::remove_file(place.paths.seal_key()).expect("removed");
    assert!(Store::create(&place.paths, &founding).is_err());
    assert!(
        !place.paths.seal_key().exists(),
        "what was made is removed again"
    );
    assert!(place.paths.store().exists(), "what was there stays");
}

#[test]
fn records_share_one_commit_or_fail_together() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    let record = |who: &str| Record {
        changes: vec![person(who)],
    };
    store
        .commit(&[record("ana"), record("bo")])
        .expect("committed");
    assert_eq!(store.load().expect("loads").persons.len(), 2);
    store.fill_the_disk();
    let many: Vec<Record> = (0..2_000).map(|at| record(&format!("u{at}"))).collect();
    assert!(store.commit(&many).is_err());
    assert_eq!(store.load().expect("loads").persons.len(), 2);
    store.commit(&[]).expect("a smaller record fits again");
}
