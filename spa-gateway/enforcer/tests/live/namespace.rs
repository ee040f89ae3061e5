//! Network namespaces: named, wired to each other by veth, gone with their value.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one with its loopback up.
    pub fn new(role: &str) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("enforcer-{}-{count}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` inside.
    pub fn ip(&self, arguments: &str) {
        let all: Vec<_> = ["-n", &self.name]
            .into_iter()
            .chain(arguments.split(' '))
            .collect();
        run("ip", &all);
    }

    /// Wires it to another; both ends are up with these addresses.
    pub fn wire(
        &self,
        link: &str,
        addresses: &[&str],
        other: &Self,
        link2: &str,
        addresses2: &[&str],
    ) {
        self.ip(&format!(
            "link add {link} type veth peer name {link2} netns {}",
            other.name
        ));
        for (end, link, addresses) in [(self, link, addresses), (other, link2, addresses2)] {
            for address in addresses {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                end.ip(&format!("address add {address} dev {link}{nodad}"));
            }
            end.ip(&format!("link set {link} up"));
        }
    }

    /// Writes a file of `/proc/sys/net`.
    pub fn sysctl(&self, path: &str, value: &str) {
        let path = format!("/proc/sys/net/{path}");
        let value = value.to_owned();
        self.inside(move || std::fs::write(path, value).expect("a sysctl of the namespace"));
    }

    /// Runs a closure in a thread inside the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace is there");
        let enter = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter a namespace");
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| {
            std::panic::resume_unwind(panic);
        })
    }

    /// Runs a program inside and gives its output.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let all: Vec<_> = ["netns", "exec", &self.name, program]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        run("ip", &all)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A panic on the way out would hide the first one.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

/// Runs a program; its output, or a panic that names it.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether we may make namespaces; says so when not.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED, NOT PASSED: needs root for network namespaces");
    }
    root
}
