//! Detects whether a source changes `after` in place: such a change is lost unless `after` is returned. Only then is it
//! worth a run's time to check for a lost change.

use oxc_ast::ast::{
    AssignmentExpression, AssignmentTarget, BindingPattern, BindingProperty, CallExpression, Expression,
    MemberExpression, Program, SimpleAssignmentTarget, UnaryExpression, UpdateExpression,
};
use oxc_ast_visit::{Visit, walk};
use oxc_syntax::operator::UnaryOperator;

/// The name in the context.
const AFTER: &str = "after";

/// Methods that change their receiver.
const CHANGING: [&str; 9] = ["push", "pop", "shift", "unshift", "splice", "sort", "reverse", "fill", "copyWithin"];

/// Based on names, so it misses changes that a source hides.
pub(super) fn changes_after(program: &Program<'_>) -> bool {
    let mut finder = Finder::default();
    finder.visit_program(program);
    finder.found
}

#[derive(Default)]
struct Finder {
    found: bool,
    /// Other names of `after` from patterns.
    aliases: Vec<String>,
}

impl Finder {
    fn is_in_after(&self, member: &MemberExpression<'_>) -> bool {
        self.leads_from_after(member.object())
    }

    fn leads_from_after(&self, mut expression: &Expression<'_>) -> bool {
        loop {
            expression = expression.get_inner_expression();
            match (expression, expression.as_member_expression()) {
                (Expression::Identifier(name), _) => {
                    return name.name == AFTER || self.aliases.iter().any(|alias| name.name == alias.as_str());
                }
                (_, Some(member)) if member.static_property_name().is_some_and(|name| name == AFTER) => return true,
                (_, Some(member)) => expression = member.object(),
                _ => return false,
            }
        }
    }
}

impl<'a> Visit<'a> for Finder {
    fn visit_binding_property(&mut self, property: &BindingProperty<'a>) {
        let target = match &property.value {
            BindingPattern::AssignmentPattern(pattern) => &pattern.left,
            target => target,
        };
        if property.key.static_name().is_some_and(|name| name == AFTER)
            && let BindingPattern::BindingIdentifier(name) = target
        {
            self.aliases.push(name.name.to_string());
        }
        walk::walk_binding_property(self, property);
    }

    fn visit_assignment_expression(&mut self, assignment: &AssignmentExpression<'a>) {
        let member =
            assignment.left.as_simple_assignment_target().and_then(SimpleAssignmentTarget::as_member_expression);
        // Targets of patterns are not examined further.
        let is_pattern = matches!(
            assignment.left,
            AssignmentTarget::ArrayAssignmentTarget(_) | AssignmentTarget::ObjectAssignmentTarget(_)
        );
        self.found |= is_pattern || member.is_some_and(|member| self.is_in_after(member));
        walk::walk_assignment_expression(self, assignment);
    }

    fn visit_update_expression(&mut self, update: &UpdateExpression<'a>) {
        self.found |= update.argument.as_member_expression().is_some_and(|member| self.is_in_after(member));
        walk::walk_update_expression(self, update);
    }

    fn visit_unary_expression(&mut self, unary: &UnaryExpression<'a>) {
        let member = unary.argument.get_inner_expression().as_member_expression();
        self.found |= unary.operator == UnaryOperator::Delete && member.is_some_and(|member| self.is_in_after(member));
        walk::walk_unary_expression(self, unary);
    }

    fn visit_call_expression(&mut self, call: &CallExpression<'a>) {
        let member = call.callee.get_inner_expression().as_member_expression();
        let changes = |member: &MemberExpression<'_>| {
            member.static_property_name().is_some_and(|name| CHANGING.contains(&name)) && self.is_in_after(member)
        };
        // `Object.assign(after, …)` and similar calls.
        let assigns = |member: &MemberExpression<'_>| {
            member.static_property_name().is_some_and(|name| ["assign", "set", "defineProperty"].contains(&name))
                && call
                    .arguments
                    .first()
                    .and_then(|first| first.as_expression())
                    .is_some_and(|it| self.leads_from_after(it))
        };
        self.found |= member.is_some_and(|member| changes(member) || assigns(member));
        walk::walk_call_expression(self, call);
    }
}

#[cfg(test)]
mod tests {
    use oxc_allocator::Allocator;
    use oxc_parser::Parser;
    use oxc_span::SourceType;

    use super::*;

    #[test]
    fn changes_in_place_are_seen() {
        let changes = |body: &str| {
            let source = format!("export default ({{ after, before: old }}) => {{ {body} }}");
            changes_after(&Parser::new(&Allocator::default(), &source, SourceType::mjs()).parse().program)
        };
        for body in [
            "after.x = 1",
            "after.x ??= 1",
            "after['x'] = 1",
            "after.list[0].x = 1",
            "(after.x).y += 1",
            "after.n++",
            "--after.n",
            "delete after.x",
            "after.list.push(1)",
            "after.list?.sort()",
            "Object.assign(after, { x: 1 })",
            "Reflect.set(after, 'x', 1)",
            "[after.x] = [1]",
            "const f = () => { after.x = 1 }; f()",
        ] {
            assert!(changes(body), "{body}");
        }
        for body in [
            "return { ...after, x: 1 }",
            "const x = { ...after }; x.y = 1; return x",
            "if (after.x === 1) throw 1",
            "old.x = 1; this.list.push(after.x)",
            "after.list.map((x) => x + 1)",
        ] {
            assert!(!changes(body), "{body}");
        }
        for (source, expected) in [
            ("export default (context) => { context.after.x = 1 }", true),
            ("export default ({ after: data }) => { data.x = 1 }", true),
            ("export default ({ after: data = {} }) => { data.x = 1 }", true),
            ("export default ({ before: data }) => { data.x = 1 }", false),
        ] {
            let allocator = Allocator::default();
            let parsed = Parser::new(&allocator, source, SourceType::mjs()).parse();
            assert_eq!(changes_after(&parsed.program), expected, "{source}");
        }
    }
}
