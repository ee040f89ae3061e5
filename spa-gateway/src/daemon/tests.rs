mod policy;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde_json::Value;
use spa_gateway_core::{Accepted, LockTarget, Name, Settings};
use spa_order::{Answer, ORDER_LEN, Order};
use spa_proto::{KnockSecret, SessionId, WallTime};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::*;
use crate::config::Paths;
use crate::control::Asked;
use crate::control::protocol::{Cut, Exceptions, Lock, Request, Selector, Status, User, UserKind};
use crate::explain::{Explanation, Typed};
use crate::policy_file::PolicyFile;
use crate::store::Founding;

/// A daemon with a store of its own and an enforcer that agrees to everything.
struct Town {
    daemon: Daemon,
    paths: Paths,
    dir: tempfile::TempDir,
    enforcer: Option<JoinHandle<()>>,
}

impl Town {
    fn new() -> Self {
        Self::with_policy("[group]\neng = [\"ana\"]\n")
    }

    fn with_policy(policy: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = paths_in(dir.path());
        let founding = Founding {
            identity: KnockSecret::from_bytes([1; 32]),
            wireguard: Zeroizing::new([2; 32]),
            made: WallTime::from_millis(1),
        };
        Store::create(&paths, &founding).expect("made");
        crate::files::create_new(&paths.policy, 0o640, policy.as_bytes()).expect("written");
        Self::on(dir, paths)
    }

    fn on(dir: tempfile::TempDir, paths: Paths) -> Self {
        let (link, enforcer) = agreeing_enforcer();
        let mut store = Store::open(&paths).expect("open");
        let file = PolicyFile::at(&paths.policy).expect("a directory");
        let (watch, policy) = PolicyWatch::start(file, &mut store);
        let now = clock::now();
        let snapshot = store.load().expect("loads");
        let gateway = Gateway::restore(settings(), snapshot, policy, now).expect("an identity");
        let (_, events) = Intake::new();
        let socket = || {
            let kind = SocketType::DGRAM;
            rustix::net::socket(AddressFamily::INET, kind, None).expect("a socket")
        };
        let mut daemon = Daemon {
            gateway,
            store,
            link,
            replies: ReplySockets {
                v4: socket(),
                v6: None,
            },
            entropy: KernelEntropy,
            events,
            room: Room::new(),
            dropped: Arc::new(Dropped::default()),
            queues: Vec::new(),
            known_tags: KnownTags::ours(0),
            late: BTreeMap::new(),
            pending: Pending::default(),
            calls: Calls::new(None),
            policy: watch,
            clock: ClockWatch {
                trust: Trust::Always,
                has_battery_clock: false,
                verdict: None,
                seen: now,
            },
            facts: Facts {
                public: "[2001:db8::1]:51820".parse().expect("an address"),
                interfaces: vec![],
                port: 51_820,
                wireguard_interface: "spa0".to_owned(),
                wireguard_port: 51_820,
                wireguard: "kernel",
                since: 0,
                keep_open: vec![],
            },
            look_around: now.mono,
            write_audit: None,
            stopping: false,
        };
        daemon.look_around(now);
        Self {
            daemon,
            paths,
            dir,
            enforcer: Some(enforcer),
        }
    }

    /// Stops the daemon as SIGTERM does and starts another on the same store.
    fn restart(mut self) -> Self {
        self.daemon.end();
        let Self {
            daemon,
            paths,
            dir,
            enforcer,
        } = self;
        drop(daemon);
        enforcer.map(JoinHandle::join);
        Self::on(dir, paths)
    }

    fn ask(&mut self, request: Request) -> Result<Value, String> {
        let (sender, mut receiver) = oneshot::channel();
        let asked = Asked {
            request,
            by: 0,
            at: Instant::now(),
            answer: sender,
        };
        self.daemon.answer(asked).expect("the enforcer is reliable");
        self.daemon.turn().expect("the enforcer is reliable");
        let answer = receiver.try_recv().expect("answered")?;
        Ok(answer.to_string().parse().expect("JSON"))
    }

    fn add(&mut self, user: &str) -> Result<Value, String> {
        self.ask(Request::AddUser {
            user: user.to_owned(),
            kind: UserKind::Human,
        })
    }

    fn reload(&mut self, why: &str) -> Result<Value, String> {
        self.ask(Request::Reload {
            login: "bo".to_owned(),
            why: why.to_owned(),
        })
    }

    fn users(&mut self) -> Vec<User> {
        let users = self.ask(Request::Users).expect("answered");
        serde_json::from_value(users).expect("users")
    }

    fn status(&mut self) -> Status {
        let status = self.ask(Request::Status).expect("answered");
        serde_json::from_value(status).expect("a status")
    }
}

fn paths_in(dir: &Path) -> Paths {
    Paths {
        policy: dir.join("policy.toml"),
        state: dir.to_owned(),
        runtime: dir.to_owned(),
    }
}

fn settings() -> Settings {
    Settings {
        wg_public: [9; 32],
        wg_port: 51_820,
        tunnel4: Some(([10, 200, 0, 1].into(), 16)),
        tunnel6: None,
        control_port: Some(8_700),
        report_every: std::time::Duration::from_secs(60),
        mtu: 1_420,
        keepalive: 25,
        dns: None,
        door: Duration::from_secs(10),
        longest: Duration::from_secs(86_400),
        capacity: 100,
        totp_digits: 6,
    }
}

fn agreeing_enforcer() -> (EnforcerLink, JoinHandle<()>) {
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .expect("a pair");
    let thread = std::thread::spawn(move || {
        let mut message = [0; ORDER_LEN];
        while let Ok((ORDER_LEN, _)) = rustix::net::recv(&theirs, &mut message, RecvFlags::empty())
        {
            let (seq, order) = Order::decode(&message).expect("an order");
            let answer = match order {
                Order::ListPeers | Order::ListOpenings => Answer::End,
                Order::ReadPeer { .. } => Answer::Absent,
                _ => Answer::Done,
            };
            rustix::net::send(&theirs, &answer.encode(seq), SendFlags::NOSIGNAL).expect("sent");
        }
    });
    (EnforcerLink::over(ours), thread)
}

#[test]
fn what_is_answered_as_done_is_on_disk() {
    let mut town = Town::new();
    assert_eq!(town.add("ana"), Ok(Value::from("ana is added")));
    assert!(town.add("ana").expect_err("refused").contains("exists"));
    let mut town = town.restart();
    let users = town.users();
    assert_eq!(users.len(), 1);
    assert_eq!(users[0].groups, ["eng"]);
}

#[test]
fn a_full_disk_changes_nothing_and_says_so() {
    let mut town = Town::new();
    town.daemon.store.fill_the_disk();
    let mut refused = None;
    // The first ones may fit into pages that are half empty.
    for at in 0..400 {
        if let Err(line) = town.add(&format!("user{at}")) {
            refused = Some((at, line));
            break;
        }
    }
    let (at, line) = refused.expect("the disk is full");
    assert!(
        line.contains("cannot write the store") || line.contains("cannot change the store"),
        "{line}"
    );
    assert!(
        line.ends_with("nothing was changed") && !line.contains('\n'),
        "{line}"
    );
    assert_eq!(town.users().len(), at);
    assert_eq!(town.restart().users().len(), at);
}

#[test]
fn an_invite_names_the_public_address() {
    let mut town = Town::new();
    town.add("ana").expect("added");
    let invited = town.ask(Request::Invite {
        user: "ana".to_owned(),
        valid_seconds: 86_400,
        confirm: crate::control::protocol::Confirm::ByWords,
    });
    let invite = invited.expect("invited")["invite"]
        .as_str()
        .expect("a line")
        .to_owned();
    assert!(invite.starts_with("spa1:[2001:db8::1]:51820/"), "{invite}");
    assert!(invite.parse::<spa_proto::Invite>().is_ok());
}

#[test]
fn nothing_to_cut_is_a_refusal() {
    let mut town = Town::new();
    let refused = town.ask(Request::Cut(Selector::User("ana".to_owned())));
    assert!(refused.expect_err("refused").contains("session list"));
}

#[test]
fn a_wrong_policy_leaves_the_one_before_in_force() {
    let mut town = Town::new();
    let good = b"[resource]\nwiki = { to = \"10.0.5.10\", ports = [\"443/tcp\"] }\n";
    crate::files::replace(&town.paths.policy, good).expect("written");
    assert!(town.reload("").is_ok());
    crate::files::replace(&town.paths.policy, b"[resorce]\n").expect("written");
    let line = town.reload("").expect_err("refused");
    assert!(
        line.contains("policy.toml:1:") && line.contains("stays in force"),
        "{line}"
    );
    assert_eq!(town.daemon.gateway.policy().resources().count(), 1);
    assert!(town.status().policy.starts_with("in force"));
}

#[test]
fn a_restored_store_accepts_nothing_until_somebody_looked() {
    let mut town = Town::new();
    assert!(town.status().accepting);
    assert!(town.ask(Request::AcceptStore).is_err());
    let backup = std::fs::read(town.paths.store()).expect("a copy");
    town.add("ana").expect("added");
    let Town {
        mut daemon,
        paths,
        dir,
        ..
    } = town;
    daemon.end();
    drop(daemon);
    std::fs::write(paths.store(), backup).expect("restored");
    let mut town = Town::on(dir, paths);
    assert!(!town.status().accepting);
    assert!(town.status().store.contains("spa-admin store accept"));
    town.ask(Request::AcceptStore).expect("accepted");
    assert!(town.status().accepting);
    assert!(town.restart().status().accepting);
}

#[test]
fn an_enforcer_that_ends_stops_the_daemon() {
    let mut town = Town::new();
    let status = std::process::Command::new("false").status().expect("ran");
    let stopped = town.daemon.take(Event::EnforcerEnded(status));
    let line = stopped.expect_err("stops").to_string();
    assert!(
        line.starts_with("the enforcer ended (exit status: 1)"),
        "{line}"
    );
}

#[test]
fn an_audit_line_is_there_when_it_is_asked_for() {
    let mut town = Town::new();
    town.add("ana").expect("added");
    let page = town.ask(Request::Audit {
        after: None,
        user: Some("ana".to_owned()),
        denied: false,
        limit: 10,
    });
    let page: crate::control::protocol::AuditPage =
        serde_json::from_value(page.expect("read")).expect("a page");
    assert_eq!(page.lines.len(), 1);
    assert_eq!(page.lines[0].line.kind, "person-added");
}

#[test]
fn a_lock_is_on_disk_when_it_is_answered_and_is_lifted_by_its_name() {
    let mut town = Town::new();
    town.add("ana").expect("added");
    let lock = |target: &str, why: &str| Request::Lock {
        target: target.to_owned(),
        seconds: None,
        why: why.to_owned(),
    };
    let cut: Cut =
        serde_json::from_value(town.ask(lock("user:ana", "lost")).expect("locked")).expect("a cut");
    assert!(cut.sessions.is_empty());
    town.ask(lock("source:203.0.113.0/24", "")).expect("locked");
    for (target, why, line) in [
        ("user:bo", "", "no user `bo`"),
        ("ana", "", "user:NAME"),
        ("device:ana/laptop", "", "no device"),
        ("all", &*"x".repeat(201), "200 characters"),
    ] {
        let refused = town.ask(lock(target, why)).expect_err(target);
        assert!(
            refused.contains(line) && !refused.contains('\n'),
            "{refused}"
        );
    }
    let mut town = town.restart();
    let locks: Vec<Lock> =
        serde_json::from_value(town.ask(Request::Locks).expect("listed")).expect("locks");
    let targets: Vec<&str> = locks.iter().map(|lock| lock.target.as_str()).collect();
    assert_eq!(targets, ["user:ana", "source:203.0.113.0/24"]);
    assert_eq!(locks[0].why, "lost");
    let unlock = Request::Unlock {
        target: "user:ana".to_owned(),
    };
    assert_eq!(
        town.ask(unlock.clone()),
        Ok(Value::from("user:ana is unlocked"))
    );
    assert!(town.ask(unlock).expect_err("refused").contains("lock list"));
    let left = town.restart().ask(Request::Locks).expect("listed");
    assert_eq!(left.as_array().map(Vec::len), Some(1));
}

#[test]
fn a_lock_is_answered_when_its_record_and_its_sessions_are_done() {
    let mut town = Town::new();
    let session = SessionId::from_bytes([1; 8]);
    let mut locked = |pending: &mut Pending| {
        let lock = town
            .daemon
            .gateway
            .lock(LockTarget::All, None, String::new(), clock::now())
            .expect("locked");
        let (sender, receiver) = oneshot::channel();
        let record = lock.record;
        let value = vec![session];
        pending.on_locked(Accepted { value, record }, sender, Instant::now());
        (record, receiver)
    };
    let mut pending = Pending::default();
    let (one, mut first) = locked(&mut pending);
    let (two, mut second) = locked(&mut pending);
    pending.ended(session);
    assert!(first.try_recv().is_err());
    pending.recorded(one, Ok(()));
    assert!(first.try_recv().expect("answered").is_ok());
    assert!(second.try_recv().is_err());
    pending.recorded(two, Err("the disk is full"));
    let refused = second.try_recv().expect("answered").expect_err("refused");
    assert!(refused.contains("until the gateway restarts"), "{refused}");
}

#[test]
fn a_lock_that_is_not_on_disk_says_so() {
    let mut town = Town::new();
    town.daemon.store.fill_the_disk();
    let refused = (0..400).find_map(|at| {
        let lock = Request::Lock {
            target: format!("source:10.0.{}.0/24", at % 256),
            seconds: Some(60),
            why: "x".repeat(200),
        };
        town.ask(lock).err()
    });
    let line = refused.expect("the disk is full");
    assert!(line.contains("until the gateway restarts"), "{line}");
}

#[test]
fn an_explanation_knows_of_locks_and_grants() {
    let mut town = Town::new();
    town.add("ana").expect("added");
    let policy = b"[resource]\nwiki = { to = \"10.0.5.10\", ports = [\"443/tcp\"] }\n";
    crate::files::replace(&town.paths.policy, policy).expect("written");
    town.reload("").expect("read");
    let question = |user: &str| {
        Request::Explain(Typed {
            user: user.to_owned(),
            device: None,
            resource: "wiki".to_owned(),
            at: None,
            from: None,
            posture: vec![],
            risk: None,
        })
    };
    let explained = |town: &mut Town| -> Explanation {
        serde_json::from_value(town.ask(question("ana")).expect("answered"))
            .expect("an explanation")
    };
    assert_eq!(explained(&mut town).reason.as_deref(), Some("no rule"));
    town.daemon
        .gateway
        .grant_access(
            &Name::parse("ana").expect("a name"),
            &Name::parse("wiki").expect("a name"),
            Duration::from_secs(3_600),
            String::new(),
            clock::now(),
        )
        .expect("granted");
    town.daemon.turn().expect("the enforcer is reliable");
    let granted = explained(&mut town);
    assert_eq!(granted.by.as_deref(), Some("grant 1"));
    assert!(granted.not_after.is_some());
    town.ask(Request::Lock {
        target: "user:ana".to_owned(),
        seconds: None,
        why: String::new(),
    })
    .expect("locked");
    assert_eq!(explained(&mut town).reason.as_deref(), Some("locked"));
    assert!(
        town.ask(question("bo"))
            .expect_err("refused")
            .contains("`bo`")
    );
}

#[test]
fn a_grant_outlives_a_restart_and_is_taken_back_by_its_number() {
    let mut town = Town::new();
    town.add("ana").expect("added");
    let policy = b"[resource]\nwiki = { to = \"10.0.5.10\", ports = [\"443/tcp\"] }\n";
    crate::files::replace(&town.paths.policy, policy).expect("written");
    town.reload("").expect("read");
    let grant = |user: &str, resource: &str, seconds| Request::Grant {
        user: user.to_owned(),
        resource: resource.to_owned(),
        seconds,
        why: "incident 7".to_owned(),
    };
    let done = town.ask(grant("ana", "wiki", 3_600)).expect("granted");
    assert!(done.as_str().expect("a line").starts_with("grant 1: ana"));
    for (user, resource, seconds, line) in [
        ("bo", "wiki", 3_600, "no user `bo`"),
        ("ana", "db", 3_600, "no resource `db`"),
        ("ana", "wiki", 1, "ten seconds"),
    ] {
        let refused = town.ask(grant(user, resource, seconds)).expect_err(line);
        assert!(refused.contains(line), "{refused}");
    }
    let mut town = town.restart();
    let all = |town: &mut Town| -> Exceptions {
        serde_json::from_value(town.ask(Request::Exceptions).expect("listed")).expect("exceptions")
    };
    let listed = all(&mut town);
    assert_eq!(listed.grants.len(), 1);
    assert_eq!(listed.grants[0].why, "incident 7");
    assert!(town.ask(Request::EndException { id: 9 }).is_err());
    town.ask(Request::EndException { id: 1 }).expect("ended");
    assert!(all(&mut town.restart()).grants.is_empty());
}

#[test]
fn there_is_nothing_to_approve_where_nobody_asked() {
    let mut town = Town::new();
    town.add("ana").expect("added");
    let refused = town.ask(Request::Approve {
        id: 1,
        by: "ana".to_owned(),
        seconds: 60,
    });
    let line = refused.expect_err("refused");
    assert!(line.contains("approve list"), "{line}");
}
