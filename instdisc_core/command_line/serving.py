"""The command that shows an index in a browser."""

import secrets
import webbrowser

import click

from instdisc_core.command_line.found import Found
from instdisc_core.command_line.group import answer, found_argument, json_option, working


@click.command()
@found_argument
@click.option("--host", default="127.0.0.1", help="Address to listen at; 0.0.0.0 is every one.")
@click.option("--port", "-p", default=8000, type=click.IntRange(0, 65535), help="0 is any.")
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@json_option
def serve(found: str, host: str, port: int, opens: bool, as_json: bool) -> None:
    """Show all photos in a browser, and find those like a picture that is dropped on the page.

    Only this machine can reach the page. With another --host every machine in the network can, so
    the address then holds a random token, which a browser keeps. Ctrl-C stops the server.

    \b
    Examples:
      instdisc serve found --open
      instdisc serve found --host 0.0.0.0 --port 8080
    """
    with working():
        from instdisc_core.server import bound, create_app, is_local, run

        folder = Found(found)
        index = folder.index()
        token = None if is_local(host) else secrets.token_urlsafe(24)
        photos, cache = folder.photos_folder(), folder.folder / "thumbnails"
        app = create_app(index, photos, cache, lambda: folder.positions(index), token)
        address = bound(host, port)
    url = address.with_token(token)
    result = {"url": url, "photos": len(index)}
    text = f"{len(index)} photos at {url}\nCtrl-C stops the server."
    answer(as_json, result, lambda: click.echo(text))
    if opens:
        webbrowser.open(url)
    with working():
        run(app, address.listener)
