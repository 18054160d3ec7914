//! How the listener gets from the command's process to its supervisor: in a message over a socket.

use libc::{c_int, cmsghdr, iovec, msghdr};
use nix::errno::Errno;
use std::{
    mem,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

/// Room for the header and one fd, aligned as a header.
type Control = [u64; 4];

const FD_BYTES: u32 = size_of::<c_int>() as u32;

/// Sends an fd. Async-signal-safe; on failure, errno has the reason.
pub(super) fn send(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> bool {
    let mut byte = [0_u8];
    let mut control: Control = [0; 4];
    with_message(&mut byte, &mut control, |message| {
        // SAFETY: `control` has room for one header and one fd, and the message refers to it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(FD_BYTES) as _;
            ptr::write_unaligned(libc::CMSG_DATA(header).cast(), fd.as_raw_fd());
            libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_NOSIGNAL) == 1
        }
    })
}

/// Receives the fd; returns `None` if the other end was closed without one.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut byte = [0_u8];
    let mut control: Control = [0; 4];
    with_message(&mut byte, &mut control, |message| {
        // SAFETY: the message refers to `byte` and `control`, which outlive the call. The kernel fills in the
        // lengths, by which CMSG_FIRSTHDR finds out whether there is a header.
        unsafe {
            loop {
                let got = libc::recvmsg(socket.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC);
                if got >= 0 || Errno::last() != Errno::EINTR {
                    break;
                }
            }
            let header: *const cmsghdr = libc::CMSG_FIRSTHDR(message);
            let is_fd = !header.is_null()
                && (*header).cmsg_level == libc::SOL_SOCKET
                && (*header).cmsg_type == libc::SCM_RIGHTS;
            is_fd.then(|| {
                let fd: RawFd = ptr::read_unaligned(libc::CMSG_DATA(header).cast());
                OwnedFd::from_raw_fd(fd)
            })
        }
    })
}

/// A message with one byte of data, and `control`.
fn with_message<T>(
    byte: &mut [u8; 1],
    control: &mut Control,
    call: impl FnOnce(*mut msghdr) -> T,
) -> T {
    let mut data = iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only calculates.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(FD_BYTES) } as _;
    call(&raw mut message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _, pipe},
        os::{fd::AsFd as _, unix::net::UnixStream},
    };

    #[test]
    fn an_fd_arrives_as_another_one_for_the_same_file() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = pipe().unwrap();
        assert!(send(ours.as_fd(), reader.as_fd()));
        let received = receive(theirs.as_fd()).unwrap();
        assert_ne!(received.as_raw_fd(), reader.as_raw_fd());
        writer.write_all(b"x").unwrap();
        reader = received.into();
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_closed_socket_has_no_fd_and_takes_none() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(receive(theirs.as_fd()).is_none());
        assert!(!send(theirs.as_fd(), theirs.as_fd()));
        assert_eq!(Errno::last(), Errno::EPIPE);
    }
}
