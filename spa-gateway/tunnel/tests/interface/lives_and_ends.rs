//! What an interface promises about its beginning and its end, its process, and what stands in its way.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use crate::support::{NOBODY, PATIENCE, PORT, backend, client_peer, ip, lab_or_return, pair, plan};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_process};
use spa_wireguard::{Backend, BackendChoice, Interface, Plan, WireguardError};

#[test]
fn deleting_leaves_no_interface_and_no_process() {
    let lab = lab_or_return!();
    let gateway = lab.gateway_interface();
    assert!(lab.gateway.shows("link show").contains("spa0"));
    gateway.delete().expect("deleted");
    assert!(!lab.gateway.shows("link show").contains("spa0"));
    assert_eq!(lab.gateway.tunnels(), []);
    lab.gateway_interface()
        .delete()
        .expect("made and deleted once more");
}

#[test]
fn a_killed_spa_tunnel_is_an_error_and_takes_the_interface_along() {
    if backend() == BackendChoice::Kernel {
        eprintln!("NOT RUN: the kernel's WireGuard has no process to kill");
        return;
    }
    let lab = lab_or_return!();
    let mut gateway = lab.gateway_interface();
    assert_eq!(gateway.backend(), Backend::Embedded);
    gateway.check().expect("it lives");
    let tunnels = lab.gateway.tunnels();
    assert_eq!(tunnels.len(), 1);
    assert!(!becomes_readable(&gateway, Duration::ZERO));
    kill_process(*tunnels.first().expect("one"), Signal::KILL).expect("root may");
    assert!(becomes_readable(&gateway, PATIENCE));
    for error in [
        gateway.check(),
        gateway.put_peer(&client_peer(7)),
        gateway.peers().map(drop),
    ] {
        let Err(WireguardError::TunnelEnded {
            status: Some(status),
            ..
        }) = error
        else {
            panic!("{error:?}")
        };
        assert!(status.to_string().contains("signal: 9"), "{status}");
    }
    assert!(!lab.gateway.shows("link show").contains("spa0"));
    gateway.delete().expect("there is nothing left to delete");
}

#[test]
fn spa_tunnel_ends_with_its_owner() {
    if backend() == BackendChoice::Kernel {
        eprintln!("NOT RUN: the kernel's WireGuard has no process");
        return;
    }
    let lab = lab_or_return!();
    drop(lab.gateway_interface());
    assert_eq!(lab.gateway.tunnels(), []);
    assert!(!lab.gateway.shows("link show").contains("spa0"));
}

#[test]
fn spa_tunnel_holds_no_privilege() {
    if backend() == BackendChoice::Kernel {
        eprintln!("NOT RUN: the kernel's WireGuard has no process");
        return;
    }
    let lab = lab_or_return!();
    let _gateway = lab.gateway_interface();
    let tunnels = lab.gateway.tunnels();
    let pid = tunnels.first().expect("one").as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
        "Groups:\t \n",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapInh:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Threads:\t1",
    ] {
        assert!(status.contains(line), "{line:?} is not in {status}");
    }
    let rss = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or_default();
    eprintln!("spa-tunnel idle: {rss}");
}

#[test]
fn an_interface_of_another_kind_is_refused_and_stays() {
    let lab = lab_or_return!();
    lab.gateway.ip("link add spa0 type veth");
    for backend in [BackendChoice::Auto, BackendChoice::Embedded] {
        let refused = lab.gateway.create_with(&Plan {
            backend,
            ..plan("spa0", PORT, &[])
        });
        let said = text(refused);
        assert_eq!(
            said,
            "interface spa0 exists and is of kind veth: choose another name, or remove it with `ip link delete spa0`"
        );
    }
    assert!(lab.gateway.shows("-d link show dev spa0").contains("veth"));
}

#[test]
fn a_wireguard_interface_somebody_else_made_is_refused_and_stays() {
    if backend() != BackendChoice::Kernel {
        eprintln!("NOT RUN: this needs a kernel with WireGuard");
        return;
    }
    let lab = lab_or_return!();
    lab.gateway.ip("link add spa0 type wireguard");
    let said = text(lab.gateway.create("spa0", PORT, &[]));
    assert!(
        said.starts_with("interface spa0 exists and is a WireGuard interface somebody else made:"),
        "{said}"
    );
    assert!(lab.gateway.shows("link show").contains("spa0"));
}

#[test]
fn a_second_owner_of_the_same_name_is_refused() {
    if backend() == BackendChoice::Kernel {
        eprintln!("NOT RUN: a kernel's interface is adopted instead");
        return;
    }
    let lab = lab_or_return!();
    let mut first = lab.gateway_interface();
    let said = text(lab.gateway.create("spa0", 51821, &[]));
    assert!(
        said.starts_with("interface spa0 exists and is held by a spa-tunnel that still runs:"),
        "{said}"
    );
    first.check().expect("the first is untouched");
}

#[test]
fn a_port_in_use_is_refused_and_nothing_is_left() {
    let lab = lab_or_return!();
    let _taken = lab.gateway.socket("[::]:51820");
    let refused = lab.gateway.create("spa0", PORT, &[(ip("10.200.0.1"), 16)]);
    assert!(
        matches!(refused, Err(WireguardError::PortInUse { port: PORT })),
        "{refused:?}"
    );
    assert!(!lab.gateway.shows("link show").contains("spa0"));
    assert_eq!(lab.gateway.tunnels(), []);
}

#[test]
fn a_port_below_1024_is_out_of_reach_for_the_embedded_wireguard() {
    if backend() == BackendChoice::Kernel {
        eprintln!("NOT RUN: the kernel may have any port");
        return;
    }
    let lab = lab_or_return!();
    let refused = lab.gateway.create("spa0", 443, &[]);
    assert!(
        matches!(refused, Err(WireguardError::PortReserved { port: 443 })),
        "{refused:?}"
    );
}

#[test]
fn a_kernel_without_wireguard_is_said_to_have_none() {
    if backend() == BackendChoice::Kernel {
        eprintln!("NOT RUN: this kernel has WireGuard");
        return;
    }
    let lab = lab_or_return!();
    let refused = lab.gateway.create_with(&Plan {
        backend: BackendChoice::Kernel,
        ..plan("spa0", PORT, &[])
    });
    if let Ok(interface) = refused {
        assert_eq!(interface.backend(), Backend::Kernel);
        interface.delete().expect("deleted");
        return;
    }
    assert!(
        matches!(refused, Err(WireguardError::NoKernelWireguard)),
        "{refused:?}"
    );
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let lab = lab_or_return!();
    let missing = Plan {
        backend: BackendChoice::Embedded,
        tunnel_program: Path::new("/nonexistent/spa-tunnel"),
        ..plan("spa0", PORT, &[])
    };
    let said = text(lab.gateway.create_with(&missing));
    assert!(
        said.contains("/nonexistent/spa-tunnel is not there") && said.contains("kmod-wireguard"),
        "{said}"
    );
    let unusable = Plan {
        tunnel_program: Path::new("/dev/null"),
        ..missing
    };
    let said = text(lab.gateway.create_with(&unusable));
    assert!(
        said.starts_with(&format!("cannot start /dev/null as user {NOBODY}: ")),
        "{said}"
    );
    let wrong = Plan {
        tunnel_program: Path::new("/bin/true"),
        ..missing
    };
    let said = text(lab.gateway.create_with(&wrong));
    assert!(
        said.starts_with("spa-tunnel has ended (exit status: 0)"),
        "{said}"
    );
    assert!(!lab.gateway.shows("link show").contains("spa0"));
}

#[test]
fn a_peer_before_the_private_key_is_refused_by_the_embedded_wireguard() {
    if backend() == BackendChoice::Kernel {
        eprintln!("NOT RUN: the kernel takes them in any order");
        return;
    }
    let lab = lab_or_return!();
    let mut gateway = lab.gateway.create("spa0", PORT, &[]).expect("an interface");
    assert_eq!(gateway.peers().expect("none yet"), []);
    gateway.put_peer(&client_peer(7)).expect_err("no key yet");
    gateway.set_private_key(&pair(1).private).expect("a key");
    gateway.put_peer(&client_peer(7)).expect("a peer");
    assert_eq!(gateway.peers().expect("one").len(), 1);
}

fn becomes_readable(interface: &Interface, patience: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(interface.as_fd(), PollFlags::IN)];
    let timeout = Timespec::try_from(patience).expect("a wait of seconds");
    poll(&mut fds, Some(&timeout)).expect("poll works") == 1
}

fn text(refused: Result<Interface, WireguardError>) -> String {
    refused.expect_err("it is refused").to_string()
}
