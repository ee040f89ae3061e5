//! A scope of the systemd user manager for the agent, where there is one: listed there as the session it holds, ended with the
//! person's last login, at the gateway too, and spared by what cleans up after a login.
//!
//! Invariant: no session depends on it. An agent that cannot be had into a scope stays a process of its own.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::geteuid;

use crate::agent::talk;
use crate::posture::Machine;
use crate::session::Session;

/// The program that carries WireGuard where the kernel does not; it goes where its agent goes.
const CARRIER: &str = "spa-tunnel";

/// Moves this process and its tunnel into a scope, beside everything else: it takes some milliseconds that nobody waits for.
pub(super) fn enter(session: &Session) {
    let Some(runtime) = env::var_os("XDG_RUNTIME_DIR") else {
        return;
    };
    if !has_manager(Path::new(&runtime)) {
        return;
    }
    let (name, about) = (name(session), about(session));
    // A thread that does not start leaves the agent where it is.
    let _ = talk::start("scope", move || move_into(&Machine::this(), &name, &about));
}

/// Whether a systemd user manager runs that is ours: sudo keeps the variable of somebody else's.
fn has_manager(runtime: &Path) -> bool {
    let socket = runtime.join("systemd/private");
    socket
        .metadata()
        .is_ok_and(|socket| socket.uid() == geteuid().as_raw())
}

/// Another one for every agent, so that a scope that is still ending is in nobody's way.
fn name(session: &Session) -> String {
    format!("{}-{}.scope", session.interface, std::process::id())
}

fn about(session: &Session) -> String {
    format!("spa session at {}", session.profile)
}

/// `systemd-run --scope` does the same for a program that it starts; this one runs already, and a knock does not wait for it.
fn move_into(machine: &Machine, name: &str, about: &str) {
    let family = family(machine);
    let pids: Vec<String> = family.iter().map(u32::to_string).collect();
    let count = pids.len().to_string();
    let mut args = vec!["--user", "--quiet", "--timeout=3", "call"];
    args.extend(["org.freedesktop.systemd1", "/org/freedesktop/systemd1"]);
    args.extend(["org.freedesktop.systemd1.Manager", "StartTransientUnit"]);
    args.extend(["ssa(sv)a(sa(sv))", name, "fail", "3"]);
    args.extend(["Description", "s", about]);
    args.extend(["CollectMode", "s", "inactive-or-failed"]);
    args.extend(["PIDs", "au", &count]);
    args.extend(pids.iter().map(String::as_str));
    args.push("0");
    // `spa status` says where it is by what the kernel says, not by this answer.
    let _ = machine.run("busctl", &args);
}

/// This process and the one that carries its tunnel.
fn family(machine: &Machine) -> Vec<u32> {
    let children = machine
        .names("proc/self/task")
        .into_iter()
        .filter_map(|task| machine.text(&format!("proc/self/task/{task}/children")))
        .flat_map(|line| {
            line.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        });
    let carriers = children.filter(|pid| {
        let comm = machine.text(&format!("proc/{pid}/comm"));
        comm.is_some_and(|comm| comm.trim_end() == CARRIER)
    });
    [std::process::id()].into_iter().chain(carriers).collect()
}

/// The scope this process is in; `None`: it is a process of its own.
pub(super) fn current(session: &Session) -> Option<String> {
    let name = name(session);
    let groups = Machine::this().text("proc/self/cgroup")?;
    groups
        .lines()
        .any(|group| group.rsplit('/').next() == Some(&name))
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::session::tests::sample;
    use crate::testing::Scratch;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("scratch is writable");
        fs::write(path, text).expect("scratch is writable");
    }

    #[test]
    fn a_scope_is_asked_for_with_the_agent_and_its_tunnel_and_no_other_child() {
        let scratch = Scratch::new("scope");
        let root = scratch.path();
        put(root, "proc/self/task/1/children", "41 42 \n");
        put(root, "proc/self/task/2/children", "");
        put(root, "proc/41/comm", "nft\n");
        put(root, "proc/42/comm", "spa-tunnel\n");
        let asked = root.join("asked");
        let script = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {}\n", asked.display());
        put(root, "usr/bin/busctl", &script);
        let busctl = root.join("usr/bin/busctl");
        fs::set_permissions(busctl, fs::Permissions::from_mode(0o755)).expect("ours");
        move_into(&Machine::at(root), "spa-x-7.scope", "spa session at gw");
        let asked = fs::read_to_string(asked).expect("busctl was run");
        let own = std::process::id().to_string();
        let pids = ["PIDs", "au", "2", &own, "42", "0"];
        assert!(asked.ends_with(&(pids.join("\n") + "\n")), "{asked}");
        let unit = "spa-x-7.scope\nfail\n3\nDescription\ns\nspa session at gw\n";
        assert!(asked.contains(unit), "{asked}");
    }

    #[test]
    fn without_a_manager_of_ours_nothing_is_asked_and_nothing_claimed() {
        let scratch = Scratch::new("no-scope");
        assert!(!has_manager(scratch.path()));
        put(scratch.path(), "systemd/private", "");
        assert!(has_manager(scratch.path()));
        // A machine without busctl: the agent stays where it is.
        move_into(&Machine::at(scratch.path()), "spa-x-7.scope", "");
        assert_eq!(current(&sample()), None);
    }
}
