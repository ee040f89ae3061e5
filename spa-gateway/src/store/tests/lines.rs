//! Audit lines.

use super::*;

fn line(user: &str, kind: &str) -> AuditLine {
    AuditLine {
        at: 1,
        kind: kind.to_owned(),
        user: Some(user.to_owned()),
        device: None,
        credential: None,
        session: None,
        source: None,
        resources: vec![],
        not_after: None,
        reason: None,
        note: None,
        took_ms: None,
    }
}

fn ask(store: &mut Store, query: &AuditQuery) -> Vec<u64> {
    let lines = store.audit(query).expect("read");
    lines.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn audit_lines_are_found_by_user_denial_and_place() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    for (user, kind) in [
        ("ana", "session-opened"),
        ("bo", "factor-failed"),
        ("ana", "factor-failed"),
    ] {
        store.append(line(user, kind));
    }
    let all = AuditQuery {
        limit: 10,
        ..AuditQuery::default()
    };
    assert_eq!(ask(&mut store, &all), [1, 2, 3]);
    assert!(!store.has_waiting());
    let ana = AuditQuery {
        user: Some("ana".to_owned()),
        ..all.clone()
    };
    assert_eq!(ask(&mut store, &ana), [1, 3]);
    let denied = AuditQuery {
        denied: true,
        ..all.clone()
    };
    assert_eq!(ask(&mut store, &denied), [2, 3]);
    let newest = AuditQuery {
        limit: 1,
        ..all.clone()
    };
    assert_eq!(ask(&mut store, &newest), [3]);
    let following = AuditQuery {
        after: Some(1),
        limit: 1,
        ..all
    };
    assert_eq!(ask(&mut store, &following), [2]);
}

#[test]
fn the_oldest_audit_lines_leave() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    for _ in 0..20_100 {
        store.append(line("ana", "session-opened"));
    }
    store.write_waiting().expect("written");
    let kept: i64 = store
        .db
        .query_row("SELECT count(*) FROM audit", [], |row| row.get(0))
        .expect("count");
    assert_eq!(kept, 20_000);
}
