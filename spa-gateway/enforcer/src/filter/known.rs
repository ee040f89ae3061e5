//! The same filter in extended BPF: what has the shape of a knock passes if its tag is in the table.
//!
//! No helper of the kernel is called and no loop is made, so every kernel with `BPF_F_MMAPABLE` takes it. What
//! the table holds is the daemon's business: the worst it can do there is to hear too much or nothing.

use std::os::fd::AsFd;

use spa_order::{ALL_PASS, HEADER_WORDS, SLOTS, TagTable};

use super::{ABOUT_PACKET_TYPE, ABOUT_PROTOCOL, ABOUT_TAG, ABOUT_TAGGED, Step, WHOLE, shape};
use crate::bpf::{self, Instruction};

// Registers. LD_ABS and LD_IND read the packet R6 points to, into R0, and spoil R1 to R5.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
/// Classic BPF's X.
const R7: u8 = 7;
const PACKET: u8 = 6;
/// First the upper half of the tag, then its bucket's place in the table.
const BUCKET: u8 = 8;
/// The word by which the tag is known there.
const WORD: u8 = 9;

/// `BPF_PSEUDO_MAP_VALUE`: the operand is a map's descriptor, and the address of its value is loaded.
const MAP_VALUE: u8 = 2;
/// Offsets in `struct __sk_buff`.
const PACKET_TYPE: i16 = 4;
const PROTOCOL: i16 = 16;
const TAGGED: i16 = 20;
const TAG: i16 = 24;
/// Bytes of a word.
const WORD_LEN: usize = size_of::<u32>();

/// The program for knocks to `port` whose tag is in the table, whose memory this is.
pub fn known_knocks(port: u16, table: TagTable, memory: impl AsFd) -> Vec<Instruction> {
    let mut program = Program {
        memory: bpf::operand(memory),
        table,
        instructions: vec![
            // PACKET := the argument.
            Instruction::new(0xBF, PACKET, R1, 0, 0),
        ],
        drops: Vec::new(),
        passes: Vec::new(),
        skips: Vec::new(),
    };
    let steps = shape(port);
    let begins: Vec<usize> = steps
        .iter()
        .enumerate()
        .map(|(at, step)| program.put(at, *step))
        .collect();
    program.finish(&begins)
}

/// Instructions, and which of them jump to where there is nothing yet.
struct Program {
    memory: i32,
    table: TagTable,
    instructions: Vec<Instruction>,
    drops: Vec<usize>,
    passes: Vec<usize>,
    /// Instruction, and the number of the step it skips to.
    skips: Vec<(usize, usize)>,
}

impl Program {
    /// Puts one step; gives where it begins.
    fn put(&mut self, at: usize, step: Step) -> usize {
        let begins = self.instructions.len();
        // linux/bpf.h, linux/bpf_common.h: class | size or operation | mode or source.
        match step {
            Step::Half(ABOUT_PACKET_TYPE) => self.add(0x61, R0, PACKET, PACKET_TYPE, 0),
            Step::Half(ABOUT_TAGGED) => self.add(0x61, R0, PACKET, TAGGED, 0),
            Step::Half(ABOUT_TAG) => self.add(0x61, R0, PACKET, TAG, 0),
            Step::Half(ABOUT_PROTOCOL) => {
                self.add(0x61, R0, PACKET, PROTOCOL, 0);
                // As it is on the wire: into the machine's order.
                self.add(0xDC, R0, 0, 0, 16);
            }
            Step::Byte(k) => self.add(0x30, R0, 0, 0, signed(k)),
            Step::Half(k) => self.add(0x28, R0, 0, 0, signed(k)),
            Step::HalfBehind(k) => self.add(0x48, R0, R7, 0, signed(k)),
            Step::Word(k) => self.add(0x20, R0, 0, 0, signed(k)),
            Step::WordBehind(k) => self.add(0x40, R0, R7, 0, signed(k)),
            Step::HeaderLength => {
                self.add(0x30, R0, 0, 0, 0);
                self.add(0x54, R0, 0, 0, 0xF);
                self.add(0x64, R0, 0, 0, 2);
                self.add(0xBC, R7, R0, 0, 0);
            }
            Step::MinusHeaderLength => self.add(0x1C, R0, R7, 0, 0),
            Step::And(k) => self.add(0x54, R0, 0, 0, signed(k)),
            Step::Is(k) => self.drop_if(0x55, k),
            Step::IsNot(k) => self.drop_if(0x15, k),
            Step::HasNone(k) => self.drop_if(0x45, k),
            Step::AtLeast(k) => self.drop_if(0xA5, k),
            Step::Unless(k, count) => {
                self.skips
                    .push((self.instructions.len(), at + 1 + usize::from(count)));
                self.add(0x55, R0, 0, 0, signed(k));
            }
            Step::Shaped(k) => {
                self.add(0x20, R0, 0, 0, signed(k));
                self.add(0xBC, BUCKET, R0, 0, 0);
                self.add(0x20, R0, 0, 0, signed(k + 4));
                self.look_up();
            }
            Step::ShapedBehind(k) => {
                self.add(0x40, R0, R7, 0, signed(k));
                self.add(0xBC, BUCKET, R0, 0, 0);
                self.add(0x40, R0, R7, 0, signed(k + 4));
                self.look_up();
            }
        }
        begins
    }

    /// The halves of the tag are in `BUCKET` and R0; see [`TagTable::place`].
    fn look_up(&mut self) {
        self.add(0xBC, WORD, R0, 0, 0);
        self.add(0x44, WORD, 0, 0, 1);
        self.add(0x54, BUCKET, 0, 0, signed(self.table.buckets() - 1));
        let bucket_len = SLOTS * WORD_LEN;
        self.add(
            0x64,
            BUCKET,
            0,
            0,
            bucket_len.trailing_zeros().cast_signed(),
        );
        self.load_address(HEADER_WORDS * WORD_LEN);
        self.add(0x0F, R1, BUCKET, 0, 0);
        for slot in 0..SLOTS {
            let offset = i16::try_from(slot * WORD_LEN).expect("a short bucket");
            self.add(0x61, R2, R1, offset, 0);
            if slot == 0 {
                self.passes.push(self.instructions.len());
                self.add(0x15, R2, 0, 0, signed(ALL_PASS));
            }
            self.passes.push(self.instructions.len());
            self.add(0x1D, R2, WORD, 0, 0);
        }
        // A stranger: counted, dropped.
        self.load_address(0);
        self.add(0xB4, R2, 0, 0, 1);
        self.add(0xC3, R1, R2, 0, 0);
        self.drops.push(self.instructions.len());
        self.add(0x05, 0, 0, 0, 0);
    }

    /// R1 := the address of a byte of the table; an instruction of two.
    fn load_address(&mut self, offset: usize) {
        self.add(0x18, R1, MAP_VALUE, 0, self.memory);
        self.add(0, 0, 0, 0, i32::try_from(offset).expect("inside the table"));
    }

    fn drop_if(&mut self, code: u8, k: u32) {
        self.drops.push(self.instructions.len());
        self.add(code, R0, 0, 0, signed(k));
    }

    fn add(&mut self, code: u8, to: u8, from: u8, offset: i16, operand: i32) {
        self.instructions
            .push(Instruction::new(code, to, from, offset, operand));
    }

    /// Puts the two ends and lets the jumps reach them.
    fn finish(mut self, begins: &[usize]) -> Vec<Instruction> {
        let drop = self.instructions.len();
        self.add(0xB4, R0, 0, 0, 0);
        self.add(0x95, 0, 0, 0, 0);
        let pass = self.instructions.len();
        self.add(0xB4, R0, 0, 0, signed(WHOLE));
        self.add(0x95, 0, 0, 0, 0);
        let skips = self
            .skips
            .iter()
            .map(|(jump, step)| (*jump, begins.get(*step).copied().unwrap_or(drop)));
        let drops = self.drops.iter().map(|jump| (*jump, drop));
        let passes = self.passes.iter().map(|jump| (*jump, pass));
        for (jump, target) in skips.chain(drops).chain(passes) {
            self.instructions[jump].offset =
                i16::try_from(target - jump - 1).expect("a short program");
        }
        self.instructions
    }
}

/// An operand is signed and is extended with its sign where 64 bits are compared: none of ours has it set.
fn signed(k: u32) -> i32 {
    i32::try_from(k).expect("no operand above 2^31")
}
