"""All that trials of a study share in one process, in one place: what is given, and the parts that know how."""

from dataclasses import dataclass

from naskd.trials.designs import Designs
from naskd.trials.networks import Networks, TrainingImages
from naskd.trials.prerequisites import PrerequisiteRecipes
from naskd.trials.resources import Resources
from naskd.trials.sources import KnowledgeSources


@dataclass(frozen=True, eq=False)
class StudyContext:
    """The parts; each knows only those before it.

    Args:
        resources: What is given: study, images, device, stores.
        images: The training images with their views.
        prerequisites: Which shared networks a design needs, and how they are named.
        networks: Builds students and teachers.
        sources: Who answers students.
        designs: What designs cost, and whether they can work.
    """

    resources: Resources
    images: TrainingImages
    prerequisites: PrerequisiteRecipes
    networks: Networks
    sources: KnowledgeSources
    designs: Designs

    @staticmethod
    def of(resources: Resources) -> "StudyContext":
        """The parts for some resources."""
        images, networks = TrainingImages(resources), Networks(resources)
        prerequisites = PrerequisiteRecipes(resources)
        sources = KnowledgeSources(resources, networks, images)
        designs = Designs(resources, networks, prerequisites, sources, images)
        return StudyContext(resources, images, prerequisites, networks, sources, designs)
