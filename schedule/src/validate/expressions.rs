//! What values are made of, and whether they are what a collective wants.

use std::collections::HashMap;

use super::violation::Fault;
use crate::program::{Buffer, Rank};

/// What a memory holds, or an operation's value is: a number in the table of expressions.
pub(super) type Expr = u32;

/// Nothing was written here.
pub(super) const UNWRITTEN: Expr = u32::MAX;

/// Expression trees, equal ones with equal numbers; the operand of rank r has number r.
pub(super) struct Expressions {
    ranks: u32,
    nodes: Vec<Node>,
    known: HashMap<Node, Expr>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Node {
    Reduced(Box<[Expr]>),
    Finished(Expr),
}

impl Expressions {
    pub(super) fn new(ranks: u32) -> Expressions {
        Expressions { ranks, nodes: Vec::new(), known: HashMap::new() }
    }

    fn add(&mut self, node: Node) -> Expr {
        let next = self.ranks + self.nodes.len() as u32;
        *self.known.entry(node).or_insert_with_key(|node| {
            self.nodes.push(node.clone());
            next
        })
    }

    pub(super) fn reduce(&mut self, mut operands: impl ExactSizeIterator<Item = Expr>) -> Expr {
        match operands.len() {
            1 => operands.next().unwrap_or(UNWRITTEN),
            _ => self.add(Node::Reduced(operands.collect())),
        }
    }

    pub(super) fn finish(&mut self, expr: Expr) -> Expr {
        self.add(Node::Finished(expr))
    }

    /// The first output that is wrong, and how.
    pub(super) fn judge(
        &self,
        outputs: impl Iterator<Item = (Rank, Expr)>,
        source: Option<Rank>,
    ) -> Result<(), (Rank, Fault)> {
        let mut right: Option<(Rank, Expr)> = None;
        for (rank, output) in outputs {
            match right {
                Some((_, expr)) if expr == output => continue,
                _ => self.judge_one(output, source).map_err(|fault| (rank, fault))?,
            }
            if let Some((other, _)) = right {
                return Err((rank, Fault::Bits { other }));
            }
            right = Some((rank, output));
        }
        Ok(())
    }

    /// `source`: whose input it should be; `None`: the reduction of all.
    fn judge_one(&self, output: Expr, source: Option<Rank>) -> Result<(), Fault> {
        if output == UNWRITTEN {
            return Err(Fault::Unwritten(Buffer::OUTPUT));
        }
        let wanted = |rank: Rank| source.is_none_or(|source| rank == source);
        let reduces = source.is_none();
        let mut times = vec![0u32; self.ranks as usize];
        let mut finishes = 0;
        let mut rest = vec![output];
        while let Some(expr) = rest.pop() {
            match expr.checked_sub(self.ranks).map(|node| &self.nodes[node as usize]) {
                // A mutant may double its operands in each step: what is wrong is known long before the end.
                None => {
                    times[expr as usize] += 1;
                    if times[expr as usize] > 1 && !rest.is_empty() {
                        break;
                    }
                }
                Some(Node::Reduced(operands)) => rest.extend_from_slice(operands),
                Some(Node::Finished(expr)) => {
                    finishes += 1;
                    rest.push(*expr);
                }
            }
        }
        let ranks = |wrong: &dyn Fn(Rank, u32) -> bool| {
            (0..)
                .zip(&times)
                .filter(|&(rank, &times)| wrong(rank, times))
                .map(|(rank, _)| rank)
                .collect::<Vec<Rank>>()
        };
        let surplus = ranks(&|rank, times| times > u32::from(wanted(rank)));
        let missing =
            if rest.is_empty() { ranks(&|rank, times| wanted(rank) && times == 0) } else { Vec::new() };
        let finished_at_the_end = output
            .checked_sub(self.ranks)
            .is_some_and(|node| matches!(self.nodes[node as usize], Node::Finished(_)));
        if !missing.is_empty() || !surplus.is_empty() {
            Err(Fault::Contributions { missing, surplus })
        } else if !reduces && finishes > 0 {
            Err(Fault::Finish("the output was finished, though nothing is reduced"))
        } else if reduces && finishes == 0 {
            Err(Fault::Finish("the output was never finished"))
        } else if reduces && finishes > 1 {
            Err(Fault::Finish("the output was finished more than once"))
        } else if reduces && !finished_at_the_end {
            Err(Fault::Finish("the output was finished before it was complete"))
        } else {
            Ok(())
        }
    }
}
