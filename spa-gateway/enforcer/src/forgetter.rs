//! A thread of its own for tracked connections: walking them takes milliseconds, and no door waits for that.
//!
//! Many sessions ending together cost one walk. What closes a session, its elements and its peer, is never
//! behind this; the answers come when they come, each with the number of its order.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use spa_order::{Answer, What};

use crate::conntrack::Conntrack;
use crate::orders::Orders;
use crate::privilege::{self, PrivilegeError};
use crate::say::say;

/// The most orders that wait; the next one holds the main loop up.
const MAX_WAITING: usize = 1024;

/// One `Forget`: its sequence number and the tunnel address.
type Forget = (u64, IpAddr);

/// The thread's other end.
#[derive(Debug)]
pub struct Forgetter {
    waiting: SyncSender<Forget>,
}

/// Why there is no such thread.
#[derive(Debug, thiserror::Error)]
pub enum ForgetterError {
    /// It cannot be started.
    #[error("cannot start a thread: {0}")]
    Start(std::io::Error),
    /// It could not give up its privilege.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// It has ended.
    #[error("the thread for tracked connections has ended")]
    Ended,
}

impl Forgetter {
    /// Starts the thread; it has no more privilege than the main loop when this returns. Without `conntrack`
    /// there is nothing to forget, and every order is done at once.
    ///
    /// # Errors
    /// See [`ForgetterError`].
    pub fn start(
        conntrack: Option<Conntrack>,
        orders: Arc<Orders>,
    ) -> Result<Self, ForgetterError> {
        let (waiting, forgets) = mpsc::sync_channel(MAX_WAITING);
        let (ready, begun) = mpsc::sync_channel(1);
        let body = move || {
            let confined = privilege::give_up();
            let go_on = confined.is_ok();
            // Nobody listening means that the process is ending.
            if ready.send(confined).is_ok() && go_on {
                serve(conntrack, &orders, &forgets);
            }
        };
        thread::Builder::new()
            .spawn(body)
            .map_err(ForgetterError::Start)?;
        begun.recv().map_err(|_| ForgetterError::Ended)??;
        Ok(Self { waiting })
    }

    /// Has the connections of an address forgotten; the answer goes out by itself.
    ///
    /// # Errors
    /// [`ForgetterError::Ended`].
    pub fn forget(&self, seq: u64, tunnel: IpAddr) -> Result<(), ForgetterError> {
        self.waiting
            .send((seq, tunnel))
            .map_err(|_| ForgetterError::Ended)
    }
}

fn serve(mut conntrack: Option<Conntrack>, orders: &Orders, forgets: &Receiver<Forget>) {
    while let Ok(first) = forgets.recv() {
        let together: Vec<Forget> = [first].into_iter().chain(forgets.try_iter()).collect();
        let addresses: BTreeSet<_> = together.iter().map(|(_, tunnel)| *tunnel).collect();
        let outcome = conntrack
            .as_mut()
            .map_or(Ok(()), |conntrack| conntrack.forget(&addresses));
        let answer = match outcome {
            Ok(()) => Answer::Done,
            Err(error) => {
                let what = What::Conntrack;
                say(format_args!("{what} failed: {error}"));
                Answer::Failed {
                    errno: error.raw_os_error().unwrap_or(0),
                    what,
                }
            }
        };
        for (seq, _) in together {
            // A daemon that is gone shows in the main loop.
            let _ = orders.answer(seq, &answer);
        }
    }
}
