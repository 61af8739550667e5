"""``labelport users``: who may see which project's media."""

from __future__ import annotations

import argparse

from labelport.catalog import projects, users
from labelport.cli.options import Commands, add_command, add_group, open_catalog
from labelport.cli.output import print_fields, print_json, print_table, say
from labelport.cli.shapes import of_membership, of_user
from labelport.model import Role


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    group = add_group(commands, "users", "Who may see which project's media.")
    add = add_command(group, "add", _add, "Create a user, who is a member of no project yet.")
    add.add_argument("email", help="unique in the catalog, in whatever case")
    add_command(group, "list", _list, "List the users.")
    show = add_command(group, "show", _show, "Show a user and the projects they are members of.")
    activate = add_command(group, "activate", _activate, "Let a user in again.")
    deactivate = add_command(
        group, "deactivate", _deactivate, "Keep a user out; tokens and memberships wait."
    )
    remove = add_command(
        group, "remove", _remove, "Forget a user with tokens and memberships. Annotations stay."
    )
    join = add_command(group, "join", _join, "Make a user a member of a project, or change a role.")
    leave = add_command(group, "leave", _leave, "End a user's membership of a project.")
    for parser in (show, activate, deactivate, remove, join, leave):
        parser.add_argument("user", help="e-mail address or id")
    for parser in (join, leave):
        parser.add_argument("--project", required=True, metavar="PROJECT", help="its title or id")
    join.add_argument(
        "--role",
        type=Role,
        choices=list(Role),
        default=Role.ANNOTATOR,
        help="see media (annotator, the default), or also send annotations (manager)",
    )


def _add(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        user = users.add(connection, options.email)
    if options.json:
        print_json(of_user(user))
    else:
        say(f"user {user.email} has id {user.id}")
    return 0


def _list(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        found = users.list_all(connection)
    if options.json:
        print_json([of_user(user) for user in found])
    else:
        print_table(
            ["id", "email", "active", "created"],
            [(user.id, user.email, user.active, user.created_at) for user in found],
        )
    return 0


def _show(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.read() as connection:
        user = users.get(connection, options.user)
        found = users.memberships(connection, user.id)
        titles = {project.id: project.title for project in projects.list_all(connection)}
    if options.json:
        print_json(of_user(user) | {"memberships": [of_membership(each) for each in found]})
        return 0
    print_fields(of_user(user))
    if found:
        say("")
        print_table(
            ["project", "title", "role"],
            [(each.project_id, titles[each.project_id], each.role) for each in found],
        )
    return 0


def _activate(options: argparse.Namespace) -> int:
    return _set_active(options, True, "is active")


def _deactivate(options: argparse.Namespace) -> int:
    return _set_active(options, False, "is kept out")


def _set_active(options: argparse.Namespace, active: bool, state: str) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        user = users.get(connection, options.user)
        user = users.set_active(connection, user.id, active)
    if options.json:
        print_json(of_user(user))
    else:
        say(f"user {user.email} {state}")
    return 0


def _remove(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        user = users.get(connection, options.user)
        users.remove(connection, user.id)
    if options.json:
        print_json({"removed": user.id})
    else:
        say(f"user {user.email} is removed")
    return 0


def _join(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        user = users.get(connection, options.user)
        project = projects.get(connection, options.project)
        membership = users.join(connection, user.id, project.id, options.role)
    if options.json:
        print_json(of_membership(membership))
    else:
        say(f"user {user.email} is {membership.role} of project {project.title}")
    return 0


def _leave(options: argparse.Namespace) -> int:
    with open_catalog(options) as catalog, catalog.begin() as connection:
        user = users.get(connection, options.user)
        project = projects.get(connection, options.project)
        users.leave(connection, user.id, project.id)
    if options.json:
        print_json({"user_id": user.id, "left": project.id})
    else:
        say(f"user {user.email} is no member of project {project.title} any more")
    return 0
