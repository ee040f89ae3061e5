//! A gateway in a namespace with the real enforcer, and the daemon's end of its socket in our hands.

use std::fs::File;
use std::io::{Read, Seek};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType,
};
use serde_json::Value;
use spa_order::{
    ANSWER_LEN, Answer, Door, Flow, FlowTarget, Hello, Opening, Order, Protocol, Ttl, Usage,
};

use crate::namespace::Namespace;
use crate::patience::until;

/// What the daemon says on the command line; tests add to it.
pub const FLAGS: &str = "--knock-interface eth0 --port 51820 --wg-interface spa0 --wg-port 51820 \
    --wg-backend auto --address 10.200.0.1/16 --address fd5a:1::1/64 --max-ttl-ms 3600000 --max-peers 3 --credentials 9 \
    --control-port 8700 --tunnel-user nobody";

/// The gateway's address on the outside, and a client's.
pub const OUTSIDE: &str = "198.51.100.10";
/// The client's first address.
pub const CLIENT: &str = "198.51.100.7";
/// The client's second, for the neighbour it is not.
pub const NEIGHBOUR: &str = "198.51.100.8";

/// The enforcer at work.
pub struct Gateway {
    /// Where it works.
    pub namespace: Namespace,
    /// Somebody outside, wired to `eth0`.
    pub client: Namespace,
    child: Child,
    socket: Option<OwnedFd>,
    /// Its first answer.
    pub hello: Hello,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
    stderr: File,
    seq: u64,
}

impl Gateway {
    /// Starts it between fresh namespaces.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it with more flags.
    pub fn start_with(more: &str) -> Self {
        let (namespace, client) = outside();
        Self::start_in(namespace, client, more)
    }

    /// Starts it in namespaces that are there.
    pub fn start_in(namespace: Namespace, client: Namespace, more: &str) -> Self {
        Self::start_flags(namespace, client, &format!("{FLAGS} {more}"))
    }

    /// Starts it where bpf(2) is refused: without the two capabilities that let a process load a program.
    pub fn start_without_bpf() -> Self {
        use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
        let (namespace, client) = outside();
        // Capabilities belong to a thread, and to what it starts.
        std::thread::scope(|scope| {
            let starts = scope.spawn(|| {
                for refused in [CapabilitySet::BPF, CapabilitySet::SYS_ADMIN] {
                    remove_capability_from_bounding_set(refused).expect("anybody may have less");
                }
                Self::start_flags(namespace, client, FLAGS)
            });
            starts.join().expect("started")
        })
    }

    fn start_flags(namespace: Namespace, client: Namespace, flags: &str) -> Self {
        let Launched {
            mut child,
            socket,
            mut stderr,
        } = launch(&namespace, flags);
        match receive_hello(&socket) {
            Some((hello, descriptors)) => Self {
                namespace,
                client,
                child,
                socket: Some(socket),
                hello,
                descriptors,
                stderr,
                seq: 0,
            },
            None => panic!("no hello, {:?}: {}", child.wait(), said(&mut stderr)),
        }
    }

    /// Starts it with room for so many peers.
    pub fn start_for(peers: u32) -> Self {
        let (namespace, client) = outside();
        let flags = FLAGS.replace("--max-peers 3", &format!("--max-peers {peers}"));
        Self::start_flags(namespace, client, &flags)
    }

    /// Orders without waiting for the answer.
    pub fn post(&mut self, order: &Order) {
        self.seq += 1;
        self.send(&order.encode(self.seq)[..]);
    }

    /// Receives an answer to whichever order.
    pub fn any_answer(&mut self) -> Answer {
        let mut bytes = [0; ANSWER_LEN];
        let socket = self.socket.as_ref().expect("not closed yet");
        let flags = RecvFlags::empty();
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut bytes[..], flags))
            .expect("an answer");
        Answer::decode(&bytes).expect("an answer").1
    }

    /// Orders, and gives the one answer.
    pub fn order(&mut self, order: &Order) -> Answer {
        self.send(&order.encode(self.seq + 1)[..]);
        self.seq += 1;
        self.receive()
    }

    /// Orders what must be done.
    pub fn done(&mut self, order: &Order) {
        let answer = self.order(order);
        assert_eq!(
            answer,
            Answer::Done,
            "{order:?}: {}",
            said(&mut self.stderr)
        );
    }

    /// Sends any bytes as one message.
    pub fn send(&self, message: &[u8]) {
        let socket = self.socket.as_ref().expect("not closed yet");
        rustix::net::send(socket, message, SendFlags::NOSIGNAL).expect("the enforcer listens");
    }

    /// Receives one answer to the last order.
    pub fn receive(&mut self) -> Answer {
        let mut bytes = [0; ANSWER_LEN + 1];
        let socket = self.socket.as_ref().expect("not closed yet");
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(socket, &mut bytes[..], RecvFlags::empty())
        });
        let (received, _) =
            received.unwrap_or_else(|_| panic!("no answer: {}", said(&mut self.stderr)));
        let decoded = Answer::decode(&bytes[..received]);
        let (seq, answer) =
            decoded.unwrap_or_else(|error| panic!("{error}: {}", said(&mut self.stderr)));
        assert_eq!(seq, self.seq);
        answer
    }

    /// Everything open, by its own account.
    pub fn openings(&mut self) -> Vec<(Opening, Usage)> {
        let mut all = Vec::new();
        let mut answer = self.order(&Order::ListOpenings);
        loop {
            match answer {
                Answer::Opening { opening, usage } => all.push((opening, usage)),
                Answer::End => return all,
                other => panic!("{other:?} in a list"),
            }
            answer = self.receive();
        }
    }

    /// The elements of a set, by the account of `nft`.
    pub fn elements(&self, set: &str) -> Vec<Value> {
        elements(&self.namespace, set)
    }

    /// Packets that met the rules with this comment, in this chain.
    pub fn counted(&self, chain: &str, comment: &str) -> u64 {
        counted(&self.namespace, chain, comment)
    }

    /// What it said on standard error so far.
    pub fn said(&mut self) -> String {
        said(&mut self.stderr)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes our end of the socket.
    pub fn close(&mut self) {
        self.socket = None;
    }

    /// Ends it the hard way.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        until("the enforcer ends", || {
            self.child.try_wait().expect("our own child")
        })
    }

    /// Ends it and gives the namespaces back.
    pub fn into_namespaces(mut self) -> (Namespace, Namespace) {
        self.close();
        self.ended();
        let empty = || Namespace::new("spare");
        (
            std::mem::replace(&mut self.namespace, empty()),
            std::mem::replace(&mut self.client, empty()),
        )
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.socket = None;
        // It ends at the end of its input; a panic here would hide the first one.
        let _ = self.child.wait();
    }
}

/// A gateway's namespace and a client's, wired.
pub fn outside() -> (Namespace, Namespace) {
    let (gateway, client) = (Namespace::new("gw"), Namespace::new("client"));
    let addresses = [
        &format!("{CLIENT}/24")[..],
        &format!("{NEIGHBOUR}/24"),
        "2001:db8::7/64",
    ];
    gateway.wire(
        "eth0",
        &[&format!("{OUTSIDE}/24"), "2001:db8::10/64"],
        &client,
        "eth0",
        &addresses,
    );
    (gateway, client)
}

/// An enforcer that was started.
pub struct Launched {
    /// The process.
    pub child: Child,
    /// The daemon's end.
    pub socket: OwnedFd,
    /// What it says.
    pub stderr: File,
}

/// Starts the binary.
pub fn launch(namespace: &Namespace, flags: &str) -> Launched {
    launch_as(namespace, flags, None)
}

/// Starts the binary as another user.
pub fn launch_as(namespace: &Namespace, flags: &str, uid: Option<u32>) -> Launched {
    build_tunnel();
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket pair");
    set_socket_timeout(&ours, Timeout::Recv, Some(Duration::from_secs(20))).expect("a timeout");
    let stderr = unnamed_file();
    let flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
    let theirs_stderr = stderr.try_clone().expect("a descriptor");
    let child = namespace.inside(move || {
        let mut command = Command::new(enforcer());
        command
            .args(flags)
            .stdin(Stdio::from(theirs))
            .stderr(theirs_stderr);
        if let Some(uid) = uid {
            use std::os::unix::process::CommandExt;
            command.uid(uid);
        }
        command
            .spawn()
            .expect("the enforcer was built for this test")
    });
    Launched {
        child,
        socket: ours,
        stderr,
    }
}

fn enforcer() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_spa-enforcer"))
}

/// `spa-tunnel` is looked for beside the enforcer; cargo builds only the latter for us.
fn build_tunnel() {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let path = enforcer().with_file_name("spa-tunnel");
        if !path.exists() {
            let directory = enforcer().parent().expect("in a directory");
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--package", "spa-tunnel"]);
            cargo
                .arg("--target-dir")
                .arg(directory.parent().expect("of a target directory"));
            if directory.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(
                cargo.status().expect("cargo runs").success(),
                "spa-tunnel does not build"
            );
        }
        path
    });
}

fn unnamed_file() -> File {
    use std::os::unix::fs::OpenOptionsExt;
    let tmpfile = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
    let mut options = File::options();
    options.read(true).write(true).custom_flags(tmpfile);
    options
        .open(std::env::temp_dir())
        .expect("a temporary file")
}

/// Everything a process said.
pub fn said(stderr: &mut File) -> String {
    let mut text = String::new();
    stderr.rewind().expect("a file");
    stderr.read_to_string(&mut text).expect("it speaks UTF-8");
    text
}

fn receive_hello(socket: &OwnedFd) -> Option<(Hello, Vec<OwnedFd>)> {
    let mut bytes = [0; ANSWER_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [std::io::IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::io::retry_on_intr(|| rustix::net::recvmsg(socket, &mut into, &mut control, flags))
        .ok()?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<_> = descriptors.flatten().collect();
    match Answer::decode(&bytes) {
        Ok((0, Answer::Hello(hello))) => {
            assert_eq!(hello.descriptors(), descriptors.len());
            Some((hello, descriptors))
        }
        _ => None,
    }
}

/// The elements of a set, by the account of `nft`.
pub fn elements(namespace: &Namespace, set: &str) -> Vec<Value> {
    let json = namespace.output("nft", &["-j", "list", "set", "inet", "spa", set]);
    let json: Value = serde_json::from_str(&json).expect("nft writes JSON");
    let sets = json["nftables"].as_array().expect("a list").iter();
    let elements = sets.filter_map(|object| object["set"]["elem"].as_array());
    elements.flatten().cloned().collect()
}

fn counted(namespace: &Namespace, chain: &str, comment: &str) -> u64 {
    let json = namespace.output("nft", &["-j", "list", "chain", "inet", "spa", chain]);
    let json: Value = serde_json::from_str(&json).expect("nft writes JSON");
    let objects = json["nftables"].as_array().expect("a list").iter();
    let rules = objects
        .map(|object| &object["rule"])
        .filter(|rule| rule["comment"] == comment);
    let counters = rules.flat_map(|rule| rule["expr"].as_array().expect("expressions"));
    counters
        .filter_map(|expression| expression["counter"]["packets"].as_u64())
        .sum()
}

/// Whether table `inet spa` is there.
pub fn has_table(namespace: &Namespace) -> bool {
    namespace
        .output("nft", &["list", "tables"])
        .contains("table inet spa")
}

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A ttl.
pub fn ttl(millis: u64) -> Ttl {
    Ttl::from_millis(millis).expect("in range")
}

/// A door; port 0 is every port.
pub fn door(source: &str, port: u16) -> Door {
    Door {
        source: ip(source),
        port: NonZeroU16::new(port),
    }
}

/// A flow of tunnel address 10.200.0.7 to one TCP port of one host.
pub fn flow(destination: &str, port: u16) -> Flow {
    Flow {
        tunnel: ip("10.200.0.7"),
        to: FlowTarget::Forward,
        destination: ip(destination),
        prefix: 32,
        protocol: Protocol::Tcp,
        ports: (port, port),
        published: None,
    }
}
