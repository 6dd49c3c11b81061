//! Limits the nesting of brackets in a source. Parsers recurse, QuickJS's with a limit not far above this one, and a
//! message with the place is better than theirs.

use oxc_ast::ast::{Program, RegExpLiteral, StringLiteral, TemplateElement};
use oxc_ast_visit::Visit;
use oxc_span::Span;

/// Maximum nesting. Nobody writes deeper code by hand.
pub(super) const BRACKETS_MAX: usize = 500;

/// The same, including brackets in texts and comments: deeper sources are not even parsed.
const FUSE: usize = 10_000;

/// Before parsing: the place with too many brackets for the parser's stack.
pub(super) fn blown(text: &str) -> Option<usize> {
    deeper(text, FUSE, &[])
}

/// After parsing: the place with too deep nesting.
pub(super) fn too_deep(text: &str, program: &Program<'_>) -> Option<usize> {
    // Nearly every source passes even with all brackets counted.
    deeper(text, BRACKETS_MAX, &[])?;
    let mut texts = Texts(program.comments.iter().map(|comment| comment.span).collect());
    texts.visit_program(program);
    texts.0.sort_unstable_by_key(|span| span.start);
    deeper(text, BRACKETS_MAX, &texts.0)
}

/// The first place at which more than `max` brackets are open. Brackets in `texts`, which are sorted, do not count.
fn deeper(text: &str, max: usize, texts: &[Span]) -> Option<usize> {
    let mut texts = texts.iter().peekable();
    let mut depth = 0_usize;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' | b')' | b']' | b'}' => {}
            _ => continue,
        }
        while texts.next_if(|span| span.end as usize <= index).is_some() {}
        if texts.peek().is_some_and(|span| span.start as usize <= index) {
            continue;
        }
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            _ => depth = depth.saturating_sub(1),
        }
        if depth > max {
            return Some(index);
        }
    }
    None
}

/// The ranges in which brackets are not code.
struct Texts(Vec<Span>);

impl<'a> Visit<'a> for Texts {
    fn visit_string_literal(&mut self, literal: &StringLiteral<'a>) {
        self.0.push(literal.span);
    }

    fn visit_template_element(&mut self, element: &TemplateElement<'a>) {
        self.0.push(element.span);
    }

    fn visit_reg_exp_literal(&mut self, literal: &RegExpLiteral<'a>) {
        self.0.push(literal.span);
    }
}
