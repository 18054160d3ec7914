//! What the worker and the helper send each other: one packet a request, one an answer.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
};

use etxtbsy_trace_common::Stack;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::resolve::{Code, Numbered};

/// The most mappings of one request, and files: the kernel passes 253 fds at most.
pub(crate) const MAPPINGS: usize = 32;
/// All files and a perf map.
const FDS: usize = MAPPINGS + 1;
/// The most bytes of a packet. Sockets take twice as much by default.
const PACKET_BYTES: usize = 96 << 10;

/// Asks for the frames of a copy, which follows it in the packet.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Counts requests.
    pub(crate) number: u64,
    /// The mappings.
    pub(crate) code: Vec<Code>,
    /// The numbers of the files that the packet has fds of, in this order.
    pub(crate) new: Vec<u64>,
    /// Whether the fd of a perf map follows.
    pub(crate) has_perf_map: bool,
}

/// The frames.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The request's.
    pub(crate) number: u64,
    /// Innermost first.
    pub(crate) frames: Vec<Numbered>,
    /// How many are left out.
    pub(crate) unknown: u32,
    /// Whether the helper has enough files and should be replaced.
    pub(crate) is_full: bool,
}

impl Answer {
    /// Serializes it, without the outermost frames if it would be too long.
    fn packet(mut self) -> io::Result<Vec<u8>> {
        loop {
            let packet = serde_json::to_vec(&self)?;
            if packet.len() <= PACKET_BYTES {
                return Ok(packet);
            }
            self.frames.pop();
            self.unknown += 1;
        }
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Sends a request. Never blocks.
pub(crate) fn send_request(
    socket: impl AsFd,
    request: &Request,
    stack: &Stack,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let header = serde_json::to_vec(request)?;
    let length = (header.len() as u32).to_ne_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(invalid());
    }
    let parts = [&length, &*header, stack.as_bytes()].map(IoSlice::new);
    sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// A request, the copy, and the files of its fds.
pub(crate) type Received = (Request, Box<Stack>, Vec<File>);

/// Waits for a request. `None` if the other end is closed.
pub(crate) fn receive_request(socket: impl AsFd) -> io::Result<Option<Received>> {
    let mut packet = vec![0; PACKET_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut packet)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            files.extend(fds.map(File::from));
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let (length, rest) = packet[..received.bytes].split_first_chunk().ok_or_else(invalid)?;
    let length = u32::from_ne_bytes(*length) as usize;
    let (header, stack) = rest.split_at_checked(length).ok_or_else(invalid)?;
    let request = serde_json::from_slice(header)?;
    let stack = Stack::read_from_bytes(stack).map_err(|_| invalid())?;
    Ok(Some((request, Box::new(stack), files)))
}

/// Sends an answer.
pub(crate) fn send_answer(socket: impl AsFd, answer: Answer) -> io::Result<()> {
    send(socket, &answer.packet()?, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reads an answer that has arrived. Never blocks.
pub(crate) fn receive_answer(socket: impl AsFd) -> io::Result<Answer> {
    let mut packet = vec![0; PACKET_BYTES];
    let (length, _) = rustix::net::recv(socket, &mut *packet, RecvFlags::DONTWAIT)?;
    Ok(serde_json::from_slice(&packet[..length])?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::resolve::{Backing, empty_stack};

    fn sockets() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn requests_carry_files() {
        let (ours, theirs) = sockets();
        let code = Code { start: 1, end: 2, offset: 3, backing: Backing::File(4) };
        let request =
            Request { number: 5, code: vec![code; MAPPINGS], new: vec![4], has_perf_map: false };
        let mut stack = empty_stack();
        stack.ip = 6;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "content").unwrap();
        send_request(&ours, &request, &stack, &[file.as_file().as_fd(); FDS]).unwrap();
        let (received, copy, mut files) = receive_request(&theirs).unwrap().unwrap();
        assert_eq!((received, copy.ip, files.len()), (request, 6, FDS));
        let mut content = String::new();
        files[0].read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        drop(ours);
        assert!(receive_request(&theirs).unwrap().is_none());
    }

    #[test]
    fn answers_lose_their_outermost_frames_if_too_long() {
        let (ours, theirs) = sockets();
        // The longest in JSON.
        let name = Some("\u{1}".repeat(512));
        let frame = Numbered { function: name.clone(), file: name, ..Numbered::default() };
        let answer = Answer { frames: vec![frame; 128], ..Answer::default() };
        send_answer(&theirs, answer).unwrap();
        let received = receive_answer(&ours).unwrap();
        assert!(received.frames.len() > 10);
        assert_eq!(received.frames.len() + received.unknown as usize, 128);
    }

    #[test]
    fn malformed_packets_are_errors() {
        let (ours, theirs) = sockets();
        for packet in [&[1][..], &[0xff; 4], &[0; 4], b"\x02\0\0\0{}"] {
            send(&ours, packet, SendFlags::empty()).unwrap();
            assert!(receive_request(&theirs).is_err());
            send(&ours, packet, SendFlags::empty()).unwrap();
            assert!(receive_answer(&theirs).is_err());
        }
    }
}
