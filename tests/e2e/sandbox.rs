//! What somebody who has taken a process over can do with it: the running programs make the calls themselves.
#![cfg(target_arch = "x86_64")]

use nix::errno::Errno;
use nix::libc;
use spa_tests::inject::Argument::{Bytes, Number};
use spa_tests::inject::{Argument, Held, Outcome};

use crate::fixture::{Place, REACHED, place, with_ana};

/// `AT_FDCWD`, as a register holds it.
const HERE: Argument<'static> = Number((-100_i64).cast_unsigned());
const NONE: Argument<'static> = Number(0);
const CLONE_VM_THREAD: u64 = 0x100 | 0x800 | 0x1_0000;
const CLONE_NEWUSER: u64 = 0x1000_0000;

fn process(place: &Place, name: &str) -> u32 {
    place.gateway.process(name).expect("it runs")
}

/// The daemon opens its store and nothing else: no file of the machine, none of its own /proc, none under another name, none to
/// write beside its policy.
#[test]
fn the_daemon_cannot_open_a_file_outside_its_paths() {
    let place = place();
    let store = place.gateway.folder().join("state/store.db");
    let policy = place.gateway.policy();
    let (read, write, make) = (libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR | libc::O_CREAT);
    let [store, policy] =
        [&store, &policy].map(|path| path.to_str().expect("a path of ours").to_owned());
    let around = format!("{store}/../../../../../../../../etc/passwd").replace("store.db/", "");
    let mut daemon = Held::stop(process(&place, "spa-gateway")).unwrap();
    let mut open = |path: &str, flags: i32| {
        let flags = Number(u64::try_from(flags).unwrap());
        let path = [HERE, Bytes(path.as_bytes()), flags, Number(0o600)];
        daemon.call(libc::SYS_openat, &path).unwrap()
    };
    // That the calls are made at all, and what the sandbox leaves, shows here.
    for path in [&store, &policy] {
        assert!(matches!(open(path, read), Outcome::Gave(_)), "{path}");
    }
    for (path, flags) in [
        ("/etc/passwd", read),
        ("/etc/shadow", read),
        ("/proc/self/mem", write),
        ("/proc/1/environ", read),
        ("/sys/class/net", read),
        ("/dev/null", write),
        ("/tmp/spa-e2e-escape", make),
        ("/", read),
        (&around, read),
        (&policy, write),
    ] {
        let outcome = open(path, flags);
        let refused = matches!(outcome, Outcome::Refused(Errno::EACCES));
        assert!(refused, "{path}: {outcome:?}");
    }
    drop(daemon);
    place.gateway.ask(&["status"]).unwrap();
}

/// It executes nothing, becomes nobody, enters and makes no namespace, raises no capability, sees into no other process, and
/// makes no socket by which it could speak to anybody or hear a packet. Afterwards it works as before.
#[test]
fn the_daemon_cannot_regain_a_privilege() {
    let (place, mut ana) = with_ana();
    let mut daemon = Held::stop(process(&place, "spa-gateway")).unwrap();
    let socket = |family: i32, kind: i32, protocol: u64| {
        let of = |number: i32| Number(u64::try_from(number).unwrap());
        (
            libc::SYS_socket,
            vec![of(family), of(kind), Number(protocol)],
        )
    };
    let user = Number(CLONE_NEWUSER);
    let attempts = [
        (libc::SYS_execve, vec![Bytes(b"/bin/su"), NONE, NONE]),
        (
            libc::SYS_execveat,
            vec![HERE, Bytes(b"/bin/su"), NONE, NONE, NONE],
        ),
        (libc::SYS_setuid, vec![NONE]),
        (libc::SYS_setresuid, vec![NONE, NONE, NONE]),
        (libc::SYS_setgroups, vec![NONE, NONE]),
        (libc::SYS_capset, vec![Bytes(&[0; 8]), Bytes(&[0xFF; 24])]),
        // PR_CAP_AMBIENT_RAISE of CAP_NET_ADMIN; a core dump with the keys; a way round the address space.
        (
            libc::SYS_prctl,
            vec![Number(47), Number(2), Number(12), NONE, NONE],
        ),
        (
            libc::SYS_prctl,
            vec![Number(4), Number(1), NONE, NONE, NONE],
        ),
        (libc::SYS_unshare, vec![user]),
        (libc::SYS_setns, vec![Number(3), NONE]),
        (
            libc::SYS_clone,
            vec![Number(CLONE_NEWUSER | 17), NONE, NONE, NONE, NONE],
        ),
        (
            libc::SYS_clone,
            vec![
                Number(CLONE_VM_THREAD | 0x4000_0000),
                NONE,
                NONE,
                NONE,
                NONE,
            ],
        ),
        (libc::SYS_fork, vec![]),
        (libc::SYS_ptrace, vec![Number(16), Number(1), NONE, NONE]),
        (
            libc::SYS_process_vm_readv,
            vec![Number(1), NONE, NONE, NONE, NONE, NONE],
        ),
        (libc::SYS_kill, vec![Number(1), NONE]),
        (
            libc::SYS_mount,
            vec![Bytes(b"none"), Bytes(b"/"), Bytes(b"tmpfs"), NONE, NONE],
        ),
        (libc::SYS_chroot, vec![Bytes(b"/")]),
        (libc::SYS_bpf, vec![NONE, NONE, NONE]),
        (
            libc::SYS_perf_event_open,
            vec![NONE, NONE, NONE, NONE, NONE],
        ),
        (libc::SYS_init_module, vec![NONE, NONE, NONE]),
        (libc::SYS_keyctl, vec![NONE, NONE]),
        (libc::SYS_io_uring_setup, vec![Number(1), NONE]),
        (libc::SYS_userfaultfd, vec![NONE]),
        (libc::SYS_memfd_create, vec![Bytes(b"x"), NONE]),
        (libc::SYS_clock_settime, vec![NONE, NONE]),
        (libc::SYS_connect, vec![Number(3), NONE, NONE]),
        socket(libc::AF_INET, libc::SOCK_STREAM, 0),
        socket(libc::AF_INET, libc::SOCK_DGRAM, 0),
        socket(libc::AF_INET6, libc::SOCK_DGRAM, 0),
        socket(libc::AF_INET, libc::SOCK_RAW, 1),
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
        socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    ];
    for (number, arguments) in attempts {
        let outcome = daemon.call(number, &arguments).unwrap();
        let refused = matches!(outcome, Outcome::Refused(Errno::EPERM));
        assert!(refused, "call {number} {arguments:?}: {outcome:?}");
    }
    // The C library asks for this one first, and must hear that there is none to use the one that is looked at.
    let newer = daemon.call(libc::SYS_clone3, &[Bytes(&[0; 88]), Number(88)]);
    assert_eq!(newer.unwrap(), Outcome::Refused(Errno::ENOSYS));
    drop(daemon);
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// The process that reads every byte of a tunnel opens no file, makes no socket, starts nothing.
#[test]
fn the_tunnel_can_do_nothing_but_carry() {
    let (place, mut ana) = with_ana();
    let Some(process) = place.gateway.process("spa-tunnel") else {
        println!("SKIPPED: the kernel has WireGuard");
        return;
    };
    let mut tunnel = Held::stop(process).unwrap();
    for (number, arguments) in [
        (
            libc::SYS_openat,
            vec![HERE, Bytes(b"/etc/passwd"), NONE, NONE],
        ),
        (libc::SYS_open, vec![Bytes(b"/dev/net/tun"), NONE, NONE]),
        (libc::SYS_socket, vec![Number(2), Number(2), NONE]),
        (libc::SYS_execve, vec![Bytes(b"/bin/su"), NONE, NONE]),
        (
            libc::SYS_clone,
            vec![Number(CLONE_NEWUSER | 17), NONE, NONE, NONE, NONE],
        ),
        (libc::SYS_unshare, vec![Number(CLONE_NEWUSER)]),
        (
            libc::SYS_prctl,
            vec![Number(47), Number(2), Number(12), NONE, NONE],
        ),
        (libc::SYS_ioctl, vec![Number(3), Number(0x8914), NONE]),
        (libc::SYS_ptrace, vec![Number(16), Number(1), NONE, NONE]),
        // Memory that could be executed.
        (
            libc::SYS_mmap,
            vec![NONE, Number(4096), Number(7), Number(0x22), NONE, NONE],
        ),
    ] {
        let outcome = tunnel.call(number, &arguments).unwrap();
        let refused = matches!(outcome, Outcome::Refused(Errno::EPERM));
        assert!(refused, "call {number} {arguments:?}: {outcome:?}");
    }
    drop(tunnel);
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// The enforcer has `CAP_NET_ADMIN` to lose: for a call that is none of its work the kernel kills it, and nothing is open then.
#[test]
fn the_enforcer_is_killed_for_a_call_that_is_none_of_its_work() {
    let mut place = place();
    for (number, arguments) in [
        (
            libc::SYS_openat,
            vec![HERE, Bytes(b"/etc/passwd"), NONE, NONE],
        ),
        (libc::SYS_socket, vec![Number(16), Number(3), Number(12)]),
        (libc::SYS_execve, vec![Bytes(b"/bin/sh"), NONE, NONE]),
    ] {
        let mut enforcer = Held::stop(process(&place, "spa-enforcer")).unwrap();
        // One of its own is no reason.
        let own = enforcer.call(libc::SYS_getpid, &[]).unwrap();
        assert!(matches!(own, Outcome::Gave(_)), "{own:?}");
        let outcome = enforcer.call(number, &arguments).unwrap();
        assert_eq!(outcome, Outcome::Killed, "call {number}");
        drop(enforcer);
        let ended = place.gateway.wait_for_end(REACHED).unwrap();
        assert_eq!(ended.code, 1);
        assert!(place.gateway.openings().unwrap().is_empty());
        place.gateway.start().unwrap();
    }
}
