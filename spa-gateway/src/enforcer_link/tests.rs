use std::path::Path;
use std::thread::JoinHandle;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SocketFlags, SocketType,
};
use spa_order::{Backend, KnockInterfaces, ORDER_LEN, Reason, Replies};

use super::program::flags;
use super::*;
use crate::config::Config;

/// A link whose other end runs `enforcer` in a thread.
fn link(enforcer: impl FnOnce(OwnedFd) + Send + 'static) -> (EnforcerLink, JoinHandle<()>) {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a pair");
    let thread = std::thread::spawn(move || enforcer(theirs));
    (EnforcerLink::over(ours), thread)
}

fn receive(socket: &OwnedFd) -> Option<(u64, Order)> {
    let mut message = [0; ORDER_LEN];
    let (length, _) = rustix::net::recv(socket, &mut message, RecvFlags::empty()).expect("recv");
    (length > 0).then(|| Order::decode(&message[..length]).expect("an order"))
}

fn answer(socket: &OwnedFd, seq: u64, answer: Answer) {
    rustix::net::send(socket, &answer.encode(seq), SendFlags::empty()).expect("send");
}

fn remove_peer(number: u8) -> Order {
    Order::RemovePeer { key: [number; 32] }
}

#[test]
fn many_orders_are_answered_in_their_order() {
    let (mut link, thread) = link(|socket| {
        while let Some((seq, Order::RemovePeer { key })) = receive(&socket) {
            let what = if key[0] == 77 {
                Answer::Refused(Reason::KeyWeak)
            } else {
                Answer::Done
            };
            answer(&socket, seq, what);
        }
    });
    let orders: Vec<Order> = (0..=u8::MAX).map(remove_peer).collect();
    let mut meanwhile = 0;
    let answers = link
        .perform_all(&orders, || meanwhile += 1)
        .expect("answered");
    assert_eq!(meanwhile, orders.len().div_ceil(WINDOW));
    drop(link);
    thread.join().expect("ended");
    assert_eq!(answers.len(), 256);
    let refused: Vec<usize> = (0..256)
        .filter(|at| answers[*at] != Given::Answered(Answer::Done))
        .collect();
    assert_eq!(refused, [77]);
}

fn forget(number: u8) -> Order {
    Order::Forget {
        tunnel: [10, 200, 0, number].into(),
    }
}

#[test]
fn what_is_answered_late_is_not_waited_for() {
    let (mut link, thread) = link(|socket| {
        let (late, _) = receive(&socket).expect("an order");
        let (seq, _) = receive(&socket).expect("an order");
        answer(&socket, seq, Answer::Done);
        // In the middle of the next turn.
        let (seq, _) = receive(&socket).expect("an order");
        answer(&socket, late, Answer::Done);
        answer(&socket, seq, Answer::Absent);
    });
    let given = link
        .perform_all(&[forget(2), remove_peer(1)], || {})
        .expect("given");
    assert_eq!(given, [Given::Later(1), Given::Answered(Answer::Done)]);
    assert!(link.awaits_late());
    assert_eq!(
        link.perform(&remove_peer(2)).expect("answered"),
        Answer::Absent
    );
    assert_eq!(link.take_late().expect("arrived"), [(1, Answer::Done)]);
    assert!(!link.awaits_late());
    thread.join().expect("ended");
}

#[test]
fn a_thousand_late_answers_block_nobody() {
    let (mut link, thread) = link(|socket| {
        // Answers each at once and so fills the daemon's side while it still sends.
        while let Some((seq, _)) = receive(&socket) {
            answer(&socket, seq, Answer::Done);
        }
    });
    let orders: Vec<Order> = (0..3_000_u16)
        .map(|at| forget(at.to_be_bytes()[1]))
        .collect();
    let given = link.perform_all(&orders, || {}).expect("given");
    assert_eq!(given.len(), 3_000);
    let mut arrived = 0;
    while link.awaits_late() {
        arrived += link.take_late().expect("reliable").len();
    }
    assert_eq!(arrived, 3_000);
    drop(link);
    thread.join().expect("ended");
}

#[test]
fn a_second_answer_ends_the_trust() {
    let (mut link, thread) = link(|socket| {
        let (seq, _) = receive(&socket).expect("an order");
        answer(&socket, seq, Answer::Done);
        answer(&socket, seq, Answer::Done);
        // Waits for the end, so that both answers are there.
        receive(&socket);
    });
    link.perform(&remove_peer(1)).expect("answered");
    assert!(matches!(
        link.perform(&remove_peer(2)),
        Err(LinkError::OutOfTurn)
    ));
    drop(link);
    thread.join().expect("ended");
}

#[test]
fn a_list_ends_at_its_end() {
    let (mut link, thread) = link(|socket| {
        let (seq, _) = receive(&socket).expect("an order");
        let report = PeerReport {
            key: [7; 32],
            endpoint: None,
            handshake_age_ms: None,
            rx: 1,
            tx: 2,
        };
        answer(&socket, seq, Answer::Peer(report));
        answer(&socket, seq, Answer::Peer(report));
        answer(&socket, seq, Answer::End);
    });
    assert_eq!(link.list_peers().expect("listed").len(), 2);
    thread.join().expect("ended");
}

#[test]
fn an_enforcer_that_ends_is_noticed() {
    let (mut link, thread) = link(drop);
    thread.join().expect("ended");
    assert!(matches!(
        link.perform(&Order::ListPeers),
        Err(LinkError::Ended)
    ));
}

#[test]
fn an_answer_out_of_turn_ends_the_trust() {
    let (mut link, thread) = link(|socket| {
        let (seq, _) = receive(&socket).expect("an order");
        answer(&socket, seq + 1, Answer::Done);
    });
    assert!(matches!(
        link.perform(&remove_peer(1)),
        Err(LinkError::OutOfTurn)
    ));
    thread.join().expect("ended");
}

#[test]
fn a_longer_message_is_no_answer() {
    let (mut link, thread) = link(|socket| {
        let (seq, _) = receive(&socket).expect("an order");
        let mut long = Answer::Done.encode(seq).to_vec();
        long.push(0);
        rustix::net::send(&socket, &long, SendFlags::empty()).expect("send");
    });
    let refused = link.perform(&remove_peer(1));
    assert!(matches!(
        refused,
        Err(LinkError::Undecodable(DecodeError::Length))
    ));
    thread.join().expect("ended");
}

#[test]
fn the_greeting_brings_its_sockets_and_the_tag_table() {
    let table = spa_order::TagTable::for_credentials(0);
    let (mut link, thread) = link(move |socket| {
        let hello = Hello {
            backend: Backend::Embedded,
            wireguard: 4,
            replies: Replies::Both,
            knock: KnockInterfaces::new(&[2]).expect("one"),
            tags: Some(table),
            access: spa_order::Access::Begun,
        };
        let file = std::fs::File::open("/dev/null").expect("open");
        let memory = tempfile::tempfile().expect("a file");
        let fds = [
            file.as_fd(),
            file.as_fd(),
            file.as_fd(),
            memory.as_fd(),
            file.as_fd(),
        ];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let message = Answer::Hello(hello).encode(0);
        let parts = [io::IoSlice::new(&message)];
        rustix::net::sendmsg(&socket, &parts, &mut control, SendFlags::empty()).expect("sent");
    });
    let ready = link.wait_ready().expect("ready");
    thread.join().expect("ended");
    assert_eq!(ready.captures.len(), 1);
    assert!(ready.replies.v6.is_some());
    assert!(ready.tags.is_some());
    assert!(ready.access.is_some_and(|access| access.ended.is_none()));
}

#[test]
fn an_enforcer_that_dies_at_its_start_is_not_ready() {
    let (mut link, thread) = link(drop);
    thread.join().expect("ended");
    assert!(matches!(link.wait_ready(), Err(LinkError::NotReady)));
}

#[test]
fn the_limits_are_on_the_command_line() {
    let text = "[knock]\ninterfaces = [\"eth0\", \"eth1\"]\nport = 51820\npublic = \"192.0.2.1:51820\"\n\
        [wireguard]\naddresses = [\"10.200.0.1/16\"]\n[firewall]\nkeep-open = [\"22/tcp\"]\nmasquerade = true\n";
    let config = Config::parse(text, Path::new("/etc/spa/gateway.toml")).expect("sound");
    let flags = flags(&config, "64181", 1_000, 12);
    let line: Vec<&str> = flags
        .iter()
        .map(|flag| flag.to_str().expect("text"))
        .collect();
    assert_eq!(
        line.join(" "),
        "--knock-interface eth0 --knock-interface eth1 --port 51820 --wg-interface spa0 --wg-port 51820 \
         --wg-backend auto --address 10.200.0.1/16 --max-ttl-ms 86400000 --max-peers 2000 --credentials 12 --control-port 8700 \
         --keep-open 22/tcp --tunnel-user 64181 --masquerade"
    );
}
