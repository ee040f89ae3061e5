//! Randomness comes in through one door, with its purpose named, so that a test can say which value is which.

use zeroize::Zeroizing;

/// A source of random bytes; the daemon's is the kernel's.
pub trait Entropy {
    /// Fills `out` with bytes nobody can predict.
    fn fill(&mut self, purpose: Purpose, out: &mut [u8]);
}

/// What the bytes become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The ephemeral key `e_s` of a reply (SPEC §6).
    ReplyKey,
    /// A session id.
    SessionId,
    /// A credential id.
    CredentialId,
    /// Any other secret: invite keys, knock keys, TOTP secrets, recovery codes.
    Secret,
}

/// Draws a secret that wipes itself.
pub(crate) fn draw<const N: usize>(
    entropy: &mut dyn Entropy,
    purpose: Purpose,
) -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    entropy.fill(purpose, bytes.as_mut_slice());
    bytes
}
