//! When each packet of a transaction leaves, whose secrets are kept, and which reply wins (SPEC §10).
//!
//! Pure: time comes in as the `Duration` since the transaction began, sockets and keys stay outside. Invariant: at most
//! [`PACKETS`] packets leave, and the reply that counts is the valid one with the latest gateway time.

use core::time::Duration;

use spa_proto::{SECRETS_KEPT, SEND_AT, WallTime};

/// How many packets a transaction has at most (SPEC §10).
pub const PACKETS: usize = SEND_AT.len();

/// How long after the first answer the gateway takes repeats (SPEC §10).
const REPEATS_TAKEN: Duration = Duration::from_secs(10);

/// How long a handshake may take before the remaining packets are sent (SPEC §10).
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);

/// How long we listen after the sixth packet: longer than any round trip worth having, so that silence is told after 8 s.
pub const LAST_LISTEN: Duration = Duration::from_secs(2);

/// How long a repeat sent for want of a handshake may go unanswered before the tunnel is tried again with the keys at
/// hand: a gateway that has seen our handshake answers no repeat (SPEC §10), and then those keys are right.
pub const REPEAT_LISTEN: Duration = Duration::from_secs(1);

/// Added to the expected arrival of a second reply, for jitter.
const SETTLE_MARGIN: Duration = Duration::from_millis(50);

/// The longest we hold the tunnel back for a second reply.
const SETTLE_LONGEST: Duration = Duration::from_secs(1);

/// What a transaction is for, and so when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The first valid reply ends it: ENROL, CLOSE, and the OPEN that activates a credential.
    Reply,
    /// It ends with the first WireGuard handshake: OPEN for resources.
    Tunnel,
}

/// What a valid reply says, as far as the schedule is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// A session: the tunnel can be tried.
    Grant,
    /// A refusal, or an answer that carries no session: nothing more to send.
    Final,
}

/// What the shell does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Build and send packet `packet` (0 is the first) to address number `address`, then call [`Schedule::sent`].
    Send {
        /// Its number in the transaction.
        packet: usize,
        /// Index into the gateway's addresses.
        address: usize,
    },
    /// Nothing is due before this time: wait for a reply or a handshake.
    Wait(Duration),
    /// Let WireGuard take over the port, with the keys of [`Schedule::reply`].
    RaiseTunnel,
    /// Take the tunnel down and the port back: the remaining packets follow.
    LowerTunnel,
    /// It is over.
    Over(End),
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A reply came, and with [`Goal::Tunnel`] and a grant also the handshake.
    Done,
    /// No valid reply came.
    Silence,
    /// A grant came, and no handshake.
    NoHandshake,
}

/// One user action on the wire. `P` holds the secrets of a packet, `R` is an opened reply.
pub struct Schedule<P, R> {
    goal: Goal,
    addresses: usize,
    unanswered: Vec<Sent<P>>,
    sent: usize,
    next_due: Duration,
    answer: Option<Answer<R>>,
    first_answer: Option<Duration>,
    phase: Phase,
}

struct Sent<P> {
    address: usize,
    at: Duration,
    secrets: P,
}

struct Answer<R> {
    address: usize,
    gateway_time: WallTime,
    reply: R,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Sending what is due and listening.
    Knocking,
    /// A grant is here; the reply to a later packet may be on its way.
    Settling {
        until: Duration,
    },
    /// WireGuard has the port.
    Tunnelling {
        since: Duration,
    },
    /// A repeat left because no handshake came; listening for its reply.
    Repeating {
        until: Duration,
    },
    Over(End),
}

impl<P, R> Schedule<P, R> {
    /// Starts at time zero, towards `addresses` addresses of the gateway, taken in turn until one answers.
    #[must_use]
    pub fn new(goal: Goal, addresses: usize) -> Self {
        Self {
            goal,
            addresses: addresses.max(1),
            unanswered: Vec::with_capacity(PACKETS),
            sent: 0,
            next_due: Duration::ZERO,
            answer: None,
            first_answer: None,
            phase: Phase::Knocking,
        }
    }

    /// Says what to do at `now`.
    #[must_use]
    pub fn poll(&mut self, now: Duration) -> Next {
        if now > SECRETS_KEPT {
            self.unanswered.clear();
        }
        match self.phase {
            Phase::Knocking => self.poll_knocking(now),
            Phase::Settling { until } | Phase::Repeating { until } if now < until => {
                Next::Wait(until)
            }
            Phase::Settling { .. } | Phase::Repeating { .. } => {
                self.phase = Phase::Tunnelling { since: now };
                Next::RaiseTunnel
            }
            Phase::Tunnelling { since } => self.poll_tunnelling(now, since),
            Phase::Over(end) => Next::Over(end),
        }
    }

    fn poll_knocking(&mut self, now: Duration) -> Next {
        if self.sent < PACKETS && now >= self.next_due {
            return Next::Send {
                packet: self.sent,
                address: self.next_address(),
            };
        }
        if self.sent < PACKETS || now < self.next_due {
            return Next::Wait(self.next_due);
        }
        self.over(End::Silence)
    }

    fn poll_tunnelling(&mut self, now: Duration, since: Duration) -> Next {
        let patience_ends = since + HANDSHAKE_PATIENCE;
        if now < patience_ends {
            return Next::Wait(patience_ends);
        }
        let repeats_end = self
            .first_answer
            .map_or(Duration::ZERO, |at| at + REPEATS_TAKEN);
        if self.sent == PACKETS || now >= repeats_end {
            return self.over(End::NoHandshake);
        }
        self.phase = Phase::Knocking;
        self.next_due = now;
        Next::LowerTunnel
    }

    /// Takes the secrets of a packet that has just left.
    pub fn sent(&mut self, address: usize, secrets: P, now: Duration) {
        self.unanswered.push(Sent {
            address,
            at: now,
            secrets,
        });
        self.note_departure(now);
    }

    /// Notes a packet that could not be sent: its place in the schedule is used up, and no reply to it can come.
    pub fn not_sent(&mut self, now: Duration) {
        self.note_departure(now);
    }

    fn note_departure(&mut self, now: Duration) {
        let gap = match (SEND_AT.get(self.sent), SEND_AT.get(self.sent + 1)) {
            (Some(this), Some(next)) => *next - *this,
            _ => LAST_LISTEN,
        };
        self.sent += 1;
        self.next_due = now + gap;
        if self.answer.is_some() {
            self.phase = Phase::Repeating {
                until: now + REPEAT_LISTEN,
            };
        }
    }

    /// The packets to address `address` that no reply has come to, newest first: a reply is tried against each.
    pub fn unanswered(&self, address: usize) -> impl Iterator<Item = (usize, &P)> {
        self.unanswered
            .iter()
            .enumerate()
            .rev()
            .filter(move |(_, sent)| sent.address == address)
            .map(|(index, sent)| (index, &sent.secrets))
    }

    /// Takes a valid reply to the packet at `index` of [`Self::unanswered`].
    pub fn handle_reply(
        &mut self,
        index: usize,
        gateway_time: WallTime,
        says: Says,
        reply: R,
        now: Duration,
    ) {
        if index >= self.unanswered.len() {
            return;
        }
        let answered = self.unanswered.remove(index);
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        if let Some(before) = &self.answer
            && before.gateway_time >= gateway_time
        {
            return;
        }
        self.answer = Some(Answer {
            address: answered.address,
            gateway_time,
            reply,
        });
        self.first_answer.get_or_insert(now);
        self.phase = match (self.goal, says) {
            (Goal::Reply, _) | (Goal::Tunnel, Says::Final) => Phase::Over(End::Done),
            (Goal::Tunnel, Says::Grant) => Phase::Settling {
                until: self.settled_at(answered.address, answered.at, now),
            },
        };
    }

    /// When the replies still on their way must have come: once WireGuard has the port we cannot read them, and each
    /// changes the gateway's keys.
    fn settled_at(&self, address: usize, sent_at: Duration, now: Duration) -> Duration {
        let round_trip = now.saturating_sub(sent_at);
        self.unanswered
            .iter()
            .filter(|sent| sent.address == address)
            .map(|sent| sent.at + round_trip + round_trip / 4 + SETTLE_MARGIN)
            .filter(|expected| *expected > now)
            .max()
            .map_or(now, |latest| latest.min(now + SETTLE_LONGEST))
    }

    /// Takes note of the first handshake.
    pub fn handle_handshake(&mut self) {
        if matches!(self.phase, Phase::Tunnelling { .. }) {
            self.phase = Phase::Over(End::Done);
        }
    }

    /// The reply that counts so far, and the number of the address it came from.
    #[must_use]
    pub fn reply(&self) -> Option<(usize, &R)> {
        self.answer
            .as_ref()
            .map(|answer| (answer.address, &answer.reply))
    }

    /// Ends the transaction and hands out the reply that counts; the secrets of every other packet go with it.
    #[must_use]
    pub fn into_reply(self) -> Option<R> {
        self.answer.map(|answer| answer.reply)
    }

    /// How many packets have left.
    #[must_use]
    pub fn packets_sent(&self) -> usize {
        self.sent
    }

    fn next_address(&self) -> usize {
        self.answer
            .as_ref()
            .map_or(self.sent % self.addresses, |answer| answer.address)
    }

    fn over(&mut self, end: End) -> Next {
        self.phase = Phase::Over(end);
        Next::Over(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Trial = Schedule<usize, &'static str>;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Runs until something other than sending and waiting is due, or until `end`; returns it with the departures.
    fn run(
        trial: &mut Trial,
        now: &mut Duration,
        end: Duration,
    ) -> (Next, Vec<(Duration, usize, usize)>) {
        let mut departures = Vec::new();
        loop {
            match trial.poll(*now) {
                Next::Send { packet, address } => {
                    departures.push((*now, packet, address));
                    trial.sent(address, packet, *now);
                }
                Next::Wait(until) if until < end => *now = until,
                Next::Wait(_) => {
                    *now = end;
                    return (Next::Wait(end), departures);
                }
                other => return (other, departures),
            }
        }
    }

    fn reply(trial: &mut Trial, packet: usize, time: u64, says: Says, now: Duration) {
        let index = (0..2)
            .flat_map(|address| {
                trial
                    .unanswered(address)
                    .map(|(i, p)| (i, *p))
                    .collect::<Vec<_>>()
            })
            .find(|(_, sent)| *sent == packet)
            .map(|(i, _)| i)
            .expect("the test replies to a packet that was sent");
        let text = ["zero", "one", "two", "three", "four", "five"][packet];
        trial.handle_reply(index, WallTime::from_millis(time), says, text, now);
    }

    #[test]
    fn silence_is_told_after_six_packets_and_eight_seconds() {
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 1), ms(0));
        let (next, departures) = run(&mut trial, &mut now, ms(60_000));
        assert_eq!(next, Next::Over(End::Silence));
        assert_eq!(now, ms(8_000));
        let times: Vec<_> = departures.iter().map(|d| d.0).collect();
        assert_eq!(times, SEND_AT);
    }

    #[test]
    fn addresses_take_turns_until_one_answers() {
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 2), ms(0));
        let (_, departures) = run(&mut trial, &mut now, ms(1_000));
        assert_eq!(
            departures.iter().map(|d| d.2).collect::<Vec<_>>(),
            [0, 1],
            "the second packet goes to the second address"
        );
        reply(&mut trial, 1, 5, Says::Grant, now);
        assert_eq!(trial.poll(now), Next::RaiseTunnel);
        now += HANDSHAKE_PATIENCE;
        assert_eq!(trial.poll(now), Next::LowerTunnel);
        assert_eq!(
            trial.poll(now),
            Next::Send {
                packet: 2,
                address: 1
            },
            "a repeat goes where the answer came from"
        );
    }

    #[test]
    fn one_reply_ends_an_enrolment() {
        let (mut trial, mut now) = (Trial::new(Goal::Reply, 1), ms(0));
        run(&mut trial, &mut now, ms(20));
        reply(&mut trial, 0, 5, Says::Grant, now);
        assert_eq!(trial.poll(now), Next::Over(End::Done));
        assert_eq!(trial.packets_sent(), 1);
        assert_eq!(trial.into_reply(), Some("zero"));
    }

    #[test]
    fn a_refusal_ends_a_knock_without_more_packets() {
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 1), ms(0));
        run(&mut trial, &mut now, ms(20));
        reply(&mut trial, 0, 5, Says::Final, now);
        assert_eq!(trial.poll(now), Next::Over(End::Done));
        assert_eq!(trial.packets_sent(), 1);
    }

    #[test]
    fn the_tunnel_is_raised_at_once_when_nothing_else_is_on_its_way() {
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 1), ms(0));
        run(&mut trial, &mut now, ms(20));
        reply(&mut trial, 0, 5, Says::Grant, now);
        assert_eq!(trial.poll(now), Next::RaiseTunnel);
        trial.handle_handshake();
        assert_eq!(trial.poll(now), Next::Over(End::Done));
    }

    #[test]
    fn the_tunnel_waits_for_a_second_reply_on_its_way() {
        // Round trip 900 ms: the second packet left at 800 ms, before the first answer.
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 1), ms(0));
        run(&mut trial, &mut now, ms(900));
        reply(&mut trial, 0, 5, Says::Grant, now);
        assert!(matches!(trial.poll(now), Next::Wait(_)));
        now = ms(1_700);
        reply(&mut trial, 1, 6, Says::Grant, now);
        assert_eq!(trial.poll(now), Next::RaiseTunnel);
        assert_eq!(trial.reply(), Some((0, &"one")));
    }

    #[test]
    fn the_latest_gateway_time_wins_whatever_the_order_of_arrival() {
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 1), ms(0));
        run(&mut trial, &mut now, ms(1_000));
        reply(&mut trial, 1, 6, Says::Grant, now);
        reply(&mut trial, 0, 5, Says::Grant, now);
        assert_eq!(trial.reply(), Some((0, &"one")));
    }

    #[test]
    fn without_a_handshake_the_remaining_packets_follow() {
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 1), ms(0));
        run(&mut trial, &mut now, ms(20));
        reply(&mut trial, 0, 5, Says::Grant, now);
        assert_eq!(trial.poll(now), Next::RaiseTunnel);
        now += HANDSHAKE_PATIENCE;
        assert_eq!(trial.poll(now), Next::LowerTunnel);
        let (next, departures) = run(&mut trial, &mut now, ms(2_100));
        assert_eq!(
            departures,
            [(ms(2_020), 1, 0)],
            "one repeat, not all at once"
        );
        assert!(matches!(next, Next::Wait(_)));
        reply(&mut trial, 1, 2_100, Says::Grant, now);
        assert_eq!(trial.poll(now), Next::RaiseTunnel);
        assert_eq!(trial.reply(), Some((0, &"one")));
    }

    #[test]
    fn an_unanswered_repeat_tries_the_keys_at_hand_again() {
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 1), ms(0));
        run(&mut trial, &mut now, ms(20));
        reply(&mut trial, 0, 5, Says::Grant, now);
        assert_eq!(trial.poll(now), Next::RaiseTunnel);
        now += HANDSHAKE_PATIENCE;
        assert_eq!(trial.poll(now), Next::LowerTunnel);
        let (next, _) = run(&mut trial, &mut now, ms(60_000));
        assert_eq!(next, Next::RaiseTunnel);
        assert_eq!(now, ms(3_020));
        trial.handle_handshake();
        assert_eq!(trial.poll(now), Next::Over(End::Done));
    }

    #[test]
    fn a_grant_without_a_handshake_ends_within_the_life_of_the_door() {
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 1), ms(0));
        run(&mut trial, &mut now, ms(20));
        reply(&mut trial, 0, 5, Says::Grant, now);
        let mut sent = 1;
        loop {
            let (next, departures) = run(&mut trial, &mut now, ms(60_000));
            sent += departures.len();
            match next {
                Next::RaiseTunnel | Next::LowerTunnel => {}
                Next::Over(end) => {
                    assert_eq!(end, End::NoHandshake);
                    break;
                }
                Next::Send { .. } | Next::Wait(_) => unreachable!("run returns neither here"),
            }
        }
        assert!(sent <= PACKETS);
        assert!(now <= ms(20) + REPEATS_TAKEN + HANDSHAKE_PATIENCE + REPEAT_LISTEN);
    }

    #[test]
    fn secrets_of_unanswered_packets_go_after_ten_seconds() {
        let (mut trial, mut now) = (Trial::new(Goal::Tunnel, 1), ms(0));
        run(&mut trial, &mut now, ms(1_000));
        assert_eq!(trial.unanswered(0).count(), 2);
        let _ = trial.poll(SECRETS_KEPT + ms(1));
        assert_eq!(trial.unanswered(0).count(), 0);
    }

    #[test]
    fn a_packet_that_could_not_leave_uses_up_its_turn() {
        let mut trial = Trial::new(Goal::Tunnel, 2);
        assert!(matches!(trial.poll(ms(0)), Next::Send { packet: 0, .. }));
        trial.not_sent(ms(0));
        assert_eq!(trial.poll(ms(0)), Next::Wait(ms(800)));
        assert_eq!(
            trial.poll(ms(800)),
            Next::Send {
                packet: 1,
                address: 1
            }
        );
        assert_eq!(trial.unanswered(0).count(), 0);
    }
}
