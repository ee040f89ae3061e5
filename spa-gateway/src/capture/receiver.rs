//! Takes frames from a capture socket, all that wait at once, into one buffer that is never made again (`recvmmsg`).
//!
//! One system call for up to [`AT_ONCE`] frames: where the kernel takes no tag filter, the call is most of what junk costs.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

/// How many frames are taken at once at most.
pub const AT_ONCE: usize = 32;
/// Bytes of one: a knock behind the longest IPv4 header is 580, and the filter lets nothing longer through.
const FRAME_LEN: usize = 640;

/// One socket and its buffer.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    frames: Box<[[u8; FRAME_LEN]; AT_ONCE]>,
}

impl Receiver {
    /// Reads from this socket, which waits when there is nothing.
    pub fn new(socket: OwnedFd) -> Self {
        let frames = Box::new([[0; FRAME_LEN]; AT_ONCE]);
        Self { socket, frames }
    }

    /// Waits for a frame and gives all that are there.
    ///
    /// # Errors
    /// The kernel's errno; it is forgotten by being told.
    pub fn receive(&mut self) -> io::Result<impl ExactSizeIterator<Item = &[u8]>> {
        // SAFETY: all zeros is a message header without name, buffers and control data.
        let mut heads: [libc::mmsghdr; AT_ONCE] = unsafe { std::mem::zeroed() };
        let mut parts = self.frames.each_mut().map(|frame| libc::iovec {
            iov_base: frame.as_mut_ptr().cast(),
            iov_len: FRAME_LEN,
        });
        for (head, part) in heads.iter_mut().zip(&mut parts) {
            head.msg_hdr.msg_iov = part;
            head.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: `heads` has AT_ONCE headers, each with one part that is FRAME_LEN writable bytes of `frames`, which is
        // borrowed mutably until they are given out; the kernel writes no more than that.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                heads.as_mut_ptr(),
                AT_ONCE as libc::c_uint,
                // Its type differs between the C libraries.
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        let lengths = heads.map(|head| head.msg_len as usize);
        let frames = self.frames.iter().zip(lengths).take(received);
        Ok(frames.map(|(frame, length)| frame.get(..length).unwrap_or(frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn all_that_wait_come_at_once_and_whole() {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair");
        let sent: Vec<Vec<u8>> = (1..=5)
            .map(|number| vec![number; 100 * usize::from(number)])
            .collect();
        for datagram in &sent {
            theirs.send(datagram).expect("sent");
        }
        let mut receiver = Receiver::new(ours.into());
        let received: Vec<Vec<u8>> = receiver
            .receive()
            .expect("received")
            .map(<[u8]>::to_vec)
            .collect();
        assert_eq!(received, sent);
        theirs.send(&[7; 2 * FRAME_LEN]).expect("sent");
        let cut = receiver
            .receive()
            .expect("received")
            .next()
            .map(<[u8]>::len);
        assert_eq!(cut, Some(FRAME_LEN));
    }
}
