"""What a user keeps: the project's folder, its book of photos, its runs, and the cards and kinds that it names."""

from lorakit.project.project import Project, new_project, open_project

__all__ = ["Project", "new_project", "open_project"]
