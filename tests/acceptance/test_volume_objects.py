"""Volumes as objects: how they are referred to, travel, and take what people give them."""

from __future__ import annotations

from acceptance_harness import Platform, Program
from volume_commands import files, is_sound


def test_one_without_a_name_and_one_whose_name_has_changed_are_mounted(
    platform: Platform, program: Program, volume: str
) -> None:
    path = program(
        f"""
        import io
        import modal
        app = modal.App("objects")

        @app.function()
        def unused():
            pass

        @app.cls()
        class Reader:
            @modal.method()
            def names(self, path):
                import os
                return os.listdir(path)

        if __name__ == "__main__":
            with modal.Volume.ephemeral() as ephemeral, modal.NetworkFileSystem.ephemeral() as shared:
                nfs = modal.App("nfs")

                mounts = dict(network_file_systems={{"/shared": shared}}, volumes={{"/own": ephemeral}})

                @nfs.function(serialized=True, **mounts)
                def write():
                    open("/shared/a", "w").write("a")
                    open("/own/b", "w").write("b")

                with nfs.run():
                    write.remote()
                print("ephemeral", *(entry.path for one in (shared, ephemeral) for entry in one.listdir("/")))
            named = modal.Volume.lookup("{volume}")
            with named.batch_upload() as batch:
                batch.put_file(io.BytesIO(b"x"), "/data")
            modal.Volume.rename("{volume}", "{volume}-b")
            other = modal.Volume.lookup("{volume}", create_if_missing=True)
            with app.run():
                print("renamed", Reader.with_options(volumes={{"/x": named}})().names.remote("/x"))
            modal.Volume.delete("{volume}")
            modal.Volume.rename("{volume}-b", "{volume}")
        """
    )
    out = platform.python(path).succeeded().out
    assert "ephemeral a b" in out
    assert "renamed ['data']" in out


def test_what_is_known_of_one_travels_with_it(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import modal
        app = modal.App("travels")

        @app.function()
        def use(new, queue):
            queue.put(1)
            return [entry.path for entry in new.listdir("/")], modal.Volume.from_name("{volume}").read_only()

        @app.function()
        def refused():
            open("/data/b", "w")

        @app.local_entrypoint()
        def main():
            new = modal.Volume.from_name("{volume}-new", create_if_missing=True)
            queue = modal.Queue.from_name("{volume}-queue", create_if_missing=True)
            names, read_only = use.remote(new, queue)
            print("new", names, queue.get())
            modal.Volume.delete("{volume}-new")
            modal.Queue.delete("{volume}-queue")

            checked = modal.App("checked")

            @checked.function(volumes={{"/data": read_only}}, serialized=True)
            def write():
                try:
                    open("/data/b", "w")
                except OSError as error:
                    return error.strerror

            with checked.run():
                print("refused:", write.remote())
        """
    )
    out = platform.modal("run", path).succeeded().out
    assert "new [] 1" in out
    assert "refused: Read-only file system" in out


def test_uploads_of_buffers_directories_and_awaited_lists(platform: Platform, program: Program, volume: str) -> None:
    (program.folder / "tree/full/empty").mkdir(parents=True)
    (program.folder / "tree/full/a").write_text("a")
    path = program(
        f"""
        import asyncio, io, pathlib
        import modal
        vol = modal.Volume.from_name("{volume}")
        buffer = io.BytesIO()
        buffer.write(b"weights")
        with vol.batch_upload() as batch:
            batch.put_file(buffer, "/model")
            batch.put_file(buffer, "/again")
            batch.put_directory("tree", pathlib.PurePosixPath("/tree"))
        print("sizes", sorted((entry.path, entry.size) for entry in vol.listdir("/") if entry.size == 7))
        print("tree", sorted(entry.path for entry in vol.iterdir(pathlib.PurePosixPath("/tree"))))

        async def main():
            async with modal.Volume.ephemeral() as one, modal.NetworkFileSystem.ephemeral() as two:
                assert await one.listdir("/") == []
                assert await two.listdir("/") == []
                await two.write_file.aio("/x", buffer)
                print("nfs", [entry.size for entry in await two.listdir("/")])
        asyncio.run(main())

        for act in (
            lambda: vol.listdir(None), lambda: vol.read_file(3).__next__(), lambda: vol.remove_file(b"x"),
            lambda: vol.copy_files(None, "/x"), lambda: vol.copy_files(["/x"], None), lambda: vol.listdir("/\\ud800"),
            lambda: vol.batch_upload().put_file("tree", "/x"), lambda: vol.batch_upload().put_directory("app.py", "/x"),
            lambda: vol.batch_upload().put_file(buffer, "/x", mode="755"), lambda: vol.listdir("a" * 300),
            lambda: vol.listdir("a/" * 3000),
        ):
            try:
                act()
            except modal.exception.InvalidError as error:
                print("refused:", error)
        """
    )
    out = platform.python(path, cwd=program.folder).succeeded().out
    assert "sizes [('again', 7), ('model', 7)]" in out
    assert "tree ['tree/full', 'tree/full/a', 'tree/full/empty']" in out
    assert "nfs [7]" in out
    assert out.count("refused:") == 11
    assert "use put_directory" in out
    assert "use put_file" in out
    platform.modal("volume", "put", volume, program.folder / "tree/full/empty", "/alone").succeeded()
    assert "alone" in files(platform, volume)


def test_paths_that_are_too_long(platform: Platform, program: Program, volume: str) -> None:
    path = program(
        f"""
        import os
        import modal
        app = modal.App("long")
        vol = modal.Volume.from_name("{volume}")

        @app.function(volumes={{"/data": vol}})
        def write():
            open("/data/precious", "w").write("x")
            folder = "/data/" + "/".join(["n" * 120] * 7)
            os.makedirs(folder)
            for number in range(1200):
                open(f"{{folder}}/{{number:0200}}", "w").close()
            vol.commit()
            os.chdir("/data")
            held = open("/data/held", "w")
            vol.commit()  # by copying
            for _ in range(40):
                os.mkdir("d" * 100)
                os.chdir("d" * 100)
            os.chdir("/")
            try:
                vol.commit()
            except modal.exception.InvalidError as error:
                print("refused:", str(error)[:60], str(error)[-30:])
            open("/data/last", "w").close()

        @app.local_entrypoint()
        def main():
            write.remote()
            print("files", sum(entry.path.startswith("n") for entry in vol.iterdir("/")))
        """
    )
    ran = platform.modal("run", path).succeeded()
    assert "refused: The volume at /data cannot be committed: dddd" in ran.out
    assert "Shorten or remove it." in ran.out
    assert "files 1207" in ran.out
    assert {"precious", "held", "last"} <= set(files(platform, volume))
    assert is_sound(platform, volume)


def test_what_a_deployed_function_has_mounted_stays_its_own_when_names_change(
    platform: Platform, program: Program, volume: str
) -> None:
    path = program(
        f"""
        import modal
        app = modal.App("objects-renamed")
        vol = modal.Volume.from_name("{volume}", create_if_missing=True)
        nfs = modal.NetworkFileSystem.from_name("{volume}", create_if_missing=True)

        @app.function(volumes={{"/data": vol}}, network_file_systems={{"/shared": nfs}})
        def write(name):
            ids = vol.object_id, nfs.object_id
            open(f"/data/{{name}}", "w").write(name)
            vol.commit()
            vol.reload()
            nfs.write_file(f"/{{name}}", __import__("io").BytesIO(b"x"))
            again = modal.Volume.from_name("{volume}").hydrate()
            names = [sorted(entry.path for entry in one.listdir("/")) for one in (vol, again, nfs)]
            return ids, again.object_id, names
        """
    )
    caller = program(
        f"""
        import modal
        vol = modal.Volume.lookup("{volume}")
        modal.Volume.rename("{volume}", "{volume}-b")
        other = modal.Volume.lookup("{volume}", create_if_missing=True)
        nfs = modal.NetworkFileSystem.lookup("{volume}")
        ids, again, names = modal.Function.lookup("objects-renamed", "write").remote("a")
        assert ids == (vol.object_id, nfs.object_id), ids
        assert again == vol.object_id != other.object_id
        assert names == [["a"]] * 3, names
        print("files", [[entry.path for entry in one.listdir("/")] for one in (vol, other, nfs)])
        modal.Volume.delete("{volume}")
        modal.NetworkFileSystem.delete("{volume}")
        modal.Volume.rename("{volume}-b", "{volume}")
        """,
        "caller.py",
    )
    platform.modal("deploy", path).succeeded()
    assert "files [['a'], [], ['a']]" in platform.python(caller).succeeded().out
    platform.modal("app", "stop", "objects-renamed").succeeded()
